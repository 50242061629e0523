# Targets of TransPose and TokenPose, heatmaps with their true centre that DARK
# decodes, and their ranges of sizes and rotations. Crops are those of UDP.
unbiased = dict(
    type='hrformer_mm.models.codecs.UnbiasedUDPHeatmap', blur_kernel_size=11)
turn = dict(
    type='hrformer_mm.RandomScaleRotation',
    scale_factor=0.35,
    rotate_factor=45.)
