# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""A web page that shows the predictions of a model on images and videos."""
import os
from typing import Any

from .demo import SLIDERS, Demo, Shown

CSS = """
.gradio-container {max-width: 1500px !important; width: 100% !important;
                   margin: 0 auto !important}
#result img, #result video {width: 100% !important; height: 72vh !important;
                            object-fit: contain !important}
.bar {display: grid; grid-template-columns: 1fr auto; margin: 6px 0}
.bar div {grid-column: 1 / 3; height: 10px; border-radius: 5px;
          background: rgba(128, 128, 128, .2); overflow: hidden}
.bar i {display: block; height: 10px}
"""


def import_gradio() -> Any:
    """Import Gradio without its usage statistics.

    Raises:
        ImportError: If it is not installed; with the command to do so.
    """
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    os.environ.setdefault('HF_HUB_DISABLE_TELEMETRY', '1')
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ImportError(
            f'the demo needs {error.name}, which is not installed: pip '
            "install 'hrformer-mm[demo]'") from error
    return gradio


def build_page(demo: Demo) -> Any:
    """Build the page of a demo as ``gradio.Blocks``."""
    gr = import_gradio()
    label, default = SLIDERS[demo.task]
    kinds = dict(pose='Pose estimation', seg='Semantic segmentation',
                 cls='Image classification')
    limits = demo.limits

    def values(shown: Shown) -> list:
        is_video = shown.video is not None
        return [
            gr.update(value=shown.image, visible=not is_video),
            gr.update(value=shown.video, visible=is_video), shown.details,
            gr.update(value=shown.files or None, visible=bool(shown.files)),
            shown.text, shown.kept]

    def upload(path, threshold, progress=gr.Progress()):
        if path is None:
            return values(Shown())
        shown = demo.run(path, threshold, lambda share: progress(
            share, desc='Predicting'))  # yapf: disable
        if not shown.files:
            gr.Warning(shown.text)
        return values(shown)

    def slide(path, threshold, kept, progress=gr.Progress()):
        if kept is None:  # a video, or nothing yet
            return upload(path, threshold, progress)
        return [*values(demo.redraw(kept, threshold))[:3], gr.skip(),
                gr.skip(), kept]  # yapf: disable

    with gr.Blocks(
            title=f'HRFormer: {demo.name}', analytics_enabled=False,
            fill_width=True, delete_cache=(600, 3600)) as page:
        gr.Markdown(f'# HRFormer\n{kinds[demo.task]} with **{demo.name}** on '
                    f'{demo.predictor.device}')
        with gr.Row():
            with gr.Column(scale=1, min_width=360):
                file = gr.File(
                    label='Drop an image or a short video',
                    file_types=['image', 'video'], height=150, elem_id='file')
                gr.Markdown(f'Up to {limits.megabytes} MB; of a video, the '
                            f'first {limits.seconds:g} s are used.')
                slider = gr.Slider(0, 1, default, step=.01, label=label)
                details = gr.HTML(elem_id='details')
                files = gr.File(
                    label='Download the results', file_count='multiple',
                    visible=False, interactive=False, elem_id='files')
            with gr.Column(scale=3, min_width=500, elem_id='result'):
                text = gr.Markdown(elem_id='text')
                image = gr.Image(
                    label='Result', interactive=False, format='jpeg',
                    buttons=['download', 'fullscreen'])
                video = gr.Video(
                    label='Result', interactive=False, visible=False,
                    autoplay=True, loop=True)
        kept = gr.State()
        outputs = [image, video, details, files, text, kept]
        queue = dict(outputs=outputs, concurrency_id='model',
                     concurrency_limit=1, api_visibility='private')
        file.change(upload, [file, slider], **queue)
        slider.release(slide, [file, slider, kept], **queue)
    return page.queue(max_size=32, api_open=False)


def launch(demo: Demo, port: int | None = None, browser: bool = False):
    """Serve the page, to this machine only, until it is interrupted.

    Args:
        demo: The demo.
        port: Port; by default the first free one from 7860.
        browser: Open the page in the browser.
    """
    gr = import_gradio()
    # Fonts of the system: others would come from the internet.
    theme = gr.themes.Default(
        font=['system-ui', 'sans-serif'], font_mono=['monospace'])
    page = build_page(demo)
    _, address, _ = page.launch(
        server_name='127.0.0.1', server_port=port, inbrowser=browser,
        share=False, theme=theme, css=CSS, footer_links=[], run_history=False,
        max_file_size=f'{demo.limits.megabytes}mb', enable_monitoring=False,
        ssr_mode=False, quiet=True, prevent_thread_lock=True)  # yapf: disable
    print(f'{demo.name} is at {address}; Ctrl+C stops it')
    page.block_thread()
