# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Training, testing and printing from the command line, and its mistakes."""
import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from helpers import CONFIGS, ROOT, write_tiny_coco
from mmengine.config import Config, ConfigDict
from mmengine.fileio import load
from mmengine.registry import HOOKS, DefaultScope
from mmengine.visualization import Visualizer
from tool_runs import CONFIG, OWN_CONFIG, error_of, tool

from hrformer_mm.engine import distributed, run_config
from hrformer_mm.engine import train as training
from hrformer_mm.tasks import TASKS
from hrformer_mm.utils import cli
from hrformer_mm.utils import config_checks as checks

pytest.importorskip('mmpose', reason='these tests have configs of pose')


@pytest.fixture(autouse=True)
def local_rank(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')  # the tools set it for good


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tools')
    (folder / 'own_row.py').write_text(OWN_CONFIG)
    write_tiny_coco(folder / 'coco')
    return folder


@pytest.fixture(scope='module')
def own_config(folder):
    """Arguments that every run of the config begins with."""
    return [str(folder / 'own_row.py'), '--data-root', str(folder / 'coco')]


@pytest.fixture(scope='module')
def trained(folder, own_config):
    tool('train')([*own_config, '--work-dir', str(folder / 'run')])
    return folder / 'run'


# Training, resuming and testing


def test_training_writes_checkpoints_a_config_and_logs(trained):
    assert {'epoch_1.pth', 'last_checkpoint', 'own_row.py',
            'best_coco_AP_epoch_1.pth'} <= {p.name for p in trained.iterdir()}
    assert len(list(trained.glob('*/*.log'))) == 1
    log = next(trained.glob('*/vis_data/scalars.json')).read_text()
    first, second, val = map(json.loads, log.splitlines())
    assert (first['iter'], second['iter']) == (1, 2) and 'coco/AP' in val


def test_resume_continues_with_iteration_and_learning_rate(trained,
                                                           own_config):
    tool('train')([*own_config, '--work-dir', str(trained), '--resume',
                   '--no-validate', '--cfg-options', 'train_cfg.max_epochs=2'])
    logs = sorted(trained.glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for log in logs
             for line in log.read_text().splitlines()]  # yapf: disable
    steps = [(x['iter'], x['lr']) for x in lines if 'lr' in x]
    assert [i for i, _ in steps] == [1, 2, 3, 4]
    expected = [5e-4 * (.001 + .999 * i / 500) for i in range(4)]
    assert [rate for _, rate in steps] == pytest.approx(expected)
    assert (trained / 'epoch_2.pth').is_file()


def test_resume_accepts_a_path(trained, own_config, folder):
    tool('train')([*own_config, '--work-dir', str(folder / 'other'),
                   '--resume', str(trained / 'epoch_1.pth'), '--no-validate',
                   '--cfg-options', 'train_cfg.max_epochs=2'])
    assert not (folder / 'other/epoch_1.pth').exists()
    saved = torch.load(folder / 'other/epoch_2.pth')
    assert saved['meta']['iter'] == 4


def test_testing_writes_metrics_predictions_and_pictures(
        trained, own_config, tmp_path):
    out, dump = tmp_path / 'metrics.json', tmp_path / 'all.pkl'
    tool('test')([
        own_config[0], str(trained / 'epoch_1.pth'), *own_config[1:],
        '--work-dir', str(tmp_path), '--out', str(out), '--dump', str(dump),
        '--show-dir', str(tmp_path / 'drawn')
    ])
    assert 0 <= load(out)['coco/AP'] <= 1
    with dump.open('rb') as file:
        assert len(pickle.load(file)) == 4
    assert list((tmp_path / 'drawn').glob('*.jpg'))


@pytest.mark.slow
def test_two_processes_train_and_test_on_cpu(own_config, tmp_path):
    def run(script, *args):
        return subprocess.run(
            ['bash', str(ROOT / f'tools/{script}'), own_config[0], *args,
             *own_config[1:], '--work-dir', str(tmp_path)],
            env=dict(os.environ, PYTHON=sys.executable, OMP_NUM_THREADS='1',
                     PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES=''),
            check=True, text=True, stdout=subprocess.PIPE,
            cwd=tmp_path).stdout  # yapf: disable

    text = run('dist_train.sh', '2')
    for notice in ('full instead of mixed precision', 'gloo instead of nccl'):
        assert text.count(f'no GPU found: {notice}') == 1  # by one process
    assert 'Epoch(train) [1][1/1]' in text  # 4 people, 2 x 2 a step
    checkpoint = tmp_path / 'epoch_1.pth'
    assert 'coco/AP: ' in run('dist_test.sh', str(checkpoint), '2')


# Mistakes


@pytest.mark.parametrize('option, says', [
    ('model.backbone.arch=huge', "['base', 'small', 'tiny'] or a dict"),
    ('model.backbone.window_size=0', 'positive integer or four of them'),
    ('model.backbone.upsample=cubic', "['nearest', 'bilinear', "),
    ('model.backbone.window=7', "unexpected keyword argument 'window'"),
    ('model.backbone.type=hrformer_mm.HRFormr', 'hrformer_mm.HRFormr'),
    ('modle.backbone.arch=tiny', "Did you mean 'model'"),
    ('model.backbone.arch.channels=3',
     "'model.backbone.arch' is not a dict"),
    ('model', 'takes KEY=VALUE'),
    ('data_root=elsewhere', 'data/coco/'),
])
def test_an_invalid_option_fails_with_one_line(option, says, capsys, tmp_path):
    args = [CONFIG, '--work-dir', tmp_path, '--cfg-options', option]
    assert says in error_of(tool('train'), args, capsys)


def test_channels_not_divisible_by_heads_fail_with_one_line(capsys, tmp_path):
    wrong = tmp_path / 'wrong.py'
    wrong.write_text(OWN_CONFIG.replace('heads=(1, 1, 2, 4)',
                                        'heads=(3, 1, 2, 4)'))
    message = error_of(tool('train'), [wrong], capsys)
    assert 'divisible' in message and '(3, 1, 2, 4)' in message


@pytest.mark.parametrize('path', [
    'configs/pose/hrformer_b_coco_384x28.py',
    'configs/pose/hrformer_b_coco_384x288',
    'hrformer_base_coco_384x288.py',
])
@pytest.mark.parametrize('name', ['train', 'test', 'print_config'])
def test_a_misspelled_config_suggests_similar_ones(path, name, capsys):
    args = [path, 'x.pth'] if name == 'test' else [path]
    message = error_of(tool(name), args, capsys)
    assert 'hrformer_b_coco_384x288.py' in message


def test_a_misspelled_name_suggests_names(capsys):
    message = error_of(tool('train'), ['hrformer_x_coco_256x192'], capsys)
    assert "'hrformer_t_coco_256x192'" in message


def test_missing_data_is_reported_with_the_flag_that_fixes_it(
        capsys, tmp_path):
    message = error_of(tool('train'), [CONFIG, '--data-root', tmp_path / 'no'],
                       capsys)
    assert 'data_root of train_dataloader' in message
    assert str(tmp_path / 'no') in message and '--data-root DIR' in message
    (tmp_path / 'no').mkdir()
    message = error_of(tool('train'), [CONFIG, '--data-root', tmp_path / 'no'],
                       capsys)
    assert 'ann_file of train_dataloader' in message


def test_a_missing_checkpoint_lists_existing_ones(trained, own_config, capsys):
    checkpoint = trained / 'epoch_9.pth'
    args = [own_config[0], checkpoint, *own_config[1:]]
    message = error_of(tool('test'), args, capsys)
    assert str(checkpoint) in message and "'epoch_1.pth'" in message
    args = [*own_config, '--resume', checkpoint]
    assert "'epoch_1.pth'" in error_of(tool('train'), args, capsys)


def test_missing_weights_are_reported_with_the_searched_places(
        own_config, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('HRFORMER_MM_MIRROR', raising=False)
    config = tmp_path / 'row.py'
    config.write_text(
        OWN_CONFIG.replace('init_cfg=None',
                           "init_cfg=dict(checkpoint='hrt_none.pth')"))
    args = [config, *own_config[1:], '--work-dir', tmp_path / 'run']
    message = error_of(tool('train'), args, capsys)
    assert 'weights/hrt_none.pth' in message
    assert 'model.backbone.init_cfg=None' in message


def test_a_missing_framework_prints_the_install_command(capsys, monkeypatch):
    monkeypatch.setattr(run_config, 'find_spec', lambda name: None)
    message = error_of(tool('train'), [CONFIG], capsys)
    assert "needs mmpose, which is not installed" in message
    assert "pip install 'hrformer-mm[pose]'" in message


@pytest.mark.parametrize('args, says', [
    (['--tta'], 'flip by default'),
    (['--dump', 'all.txt'], '.pkl or .pickle'),
])
def test_flags_that_do_not_apply_explain_why(args, says, own_config, capsys):
    args = [own_config[0], 'x.pth', *own_config[1:], *args]
    assert says in error_of(tool('test'), args, capsys)


@pytest.mark.parametrize('way', ['flag', 'environment'])
def test_the_traceback_is_shown_on_request(way, monkeypatch):
    flags = ['--traceback'] if way == 'flag' else []
    if way == 'environment':
        monkeypatch.setenv('HRFORMER_MM_TRACEBACK', '1')
    with pytest.raises(FileNotFoundError, match='no config at'):
        tool('print_config')(['nowhere.py', *flags])


def raiser(error):

    @cli.one_line_errors
    def main(argv=None):
        raise error

    return main


@pytest.mark.parametrize('error, line', [
    (KeyError('X is not in the registry'), 'error: X is not in the registry'),
    (ValueError('two\n  lines'), 'error: two lines'),
    (OSError(2, 'no', 'x.jpg'), "error: [Errno 2] no: 'x.jpg'"),
    (TypeError('f() got an unexpected argument'), 'error: f() got'),
    (ValueError(), 'error: ValueError'),
    (FileNotFoundError('Caught X in DataLoader worker.\nOriginal Traceback '
                       '(most recent call last):\n File\nX: no x.jpg'),
     'error: X: no x.jpg'),
], ids=range(6))  # yapf: disable
def test_errors_are_one_line(error, line, capsys):
    with pytest.raises(SystemExit):
        raiser(error)([])
    printed = capsys.readouterr().err
    assert printed.startswith(line) and printed.count('\n') == 1
    assert 'HRFORMER_MM_TRACEBACK=1' in printed  # not raised by the package


@pytest.mark.parametrize('error', [
    RuntimeError('CUDA out of memory'), TypeError('unsupported operand'),
    ZeroDivisionError(), KeyboardInterrupt()
], ids=lambda error: type(error).__name__)  # yapf: disable
def test_internal_errors_keep_their_traceback(error):
    with pytest.raises(type(error)):
        raiser(error)([])


# Changes to a config


def test_data_root_moves_all_paths_below_it():
    cfg = Config(dict(data_root='data/coco', a=['data/coco/x', 'data/coco2'],
                      b=dict(c='data/coco', d=('data/coco/y/', 3))))
    training.set_data_root(cfg, '/d')
    assert cfg.a == ['/d/x', 'data/coco2']
    assert cfg.b == dict(c='/d/', d=('/d/y/', 3))


def test_data_root_of_a_config_without_one_is_rejected():
    with pytest.raises(ValueError, match='no data_root at its top'):
        training.set_data_root(Config(dict(a=1)), '/d')


def test_data_of_wrapped_datasets_is_checked(tmp_path):
    parts = [dict(data_root=str(tmp_path), data_prefix=dict(img_path='img')),
             dict(data_root=str(tmp_path), data_prefix='more'),
             dict(data_root='s3://bucket', ann_file='a.json')]
    cfg = Config(dict(x=dict(dataset=dict(dataset=dict(datasets=parts)))))
    for name in ('img', 'more'):
        with pytest.raises(FileNotFoundError, match=f'{tmp_path}/{name};'):
            checks.check_data_files(cfg, 'x')
        (tmp_path / name).mkdir()
    checks.check_data_files(cfg, 'x', 'val_dataloader')


def runnable(launcher='none'):
    return Config(dict(
        launcher=launcher, sync_bn='torch',
        env_cfg=dict(dist_cfg=dict(backend='nccl')),
        optim_wrapper=dict(type='AmpOptimWrapper', dtype='float16',
                           clip_grad=dict(max_norm=1))))  # yapf: disable


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(distributed, 'print_log',
                        lambda line, _: lines.append(line))
    return lines


def test_without_gpu_mmengines_amp_wrapper_is_replaced_by_ours(said):
    cfg = runnable()
    training.fit_machine(cfg)
    assert cfg.optim_wrapper == dict(
        runnable().optim_wrapper, type='hrformer_mm.AmpOptimWrapper')
    assert cfg.sync_bn == 'torch'  # one process has nothing to synchronise
    assert said == []  # the wrapper prints its notice when it is built


@pytest.fixture
def as_task_of_slurm(monkeypatch):
    for name in ('MASTER_ADDR', 'MASTER_PORT', 'RANK', 'WORLD_SIZE'):
        monkeypatch.setenv(name, '')  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in dict(PROCID=1, NTASKS=4, LOCALID=1, JOB_ID=7).items():
        monkeypatch.setenv(f'SLURM_{name}', str(value))
    monkeypatch.setattr(distributed, 'meet', lambda: None)  # nobody comes


def test_without_gpu_processes_use_gloo(monkeypatch, said, as_task_of_slurm):
    joined = []
    monkeypatch.setattr(distributed.dist, 'init_process_group',
                        lambda backend, **_: joined.append(backend))
    monkeypatch.setenv('SLURM_PROCID', '0')
    cfg = runnable('slurm')
    training.fit_machine(cfg)
    assert joined == ['gloo'] == [cfg.env_cfg.dist_cfg.backend]
    assert cfg.sync_bn == 'torch'
    assert said == ['no GPU found: gloo instead of nccl']


def test_with_a_gpu_nothing_but_the_launcher_is_changed(
        monkeypatch, said, as_task_of_slurm):
    monkeypatch.setattr(distributed, 'get_device', lambda: 'cuda')
    cfg = runnable('slurm')
    training.fit_machine(cfg)
    assert cfg.to_dict() == runnable('pytorch').to_dict()
    assert [os.environ[name] for name in (
        'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'
    )] == ['1', '4', '1', '127.0.0.1', '29507']
    assert said == []


def test_amp_flag_turns_mixed_precision_on():
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='AdamW'))))
    training.use_amp(cfg)
    assert cfg.optim_wrapper.type == 'hrformer_mm.AmpOptimWrapper'
    training.use_amp(cfg)  # again
    cfg.optim_wrapper.type = 'MyWrapper'
    with pytest.raises(ValueError, match='MyWrapper'):
        training.use_amp(cfg)


def test_learning_rate_is_scaled_if_the_recipe_has_a_base_batch_size():
    cfg = Config.fromfile(CONFIG)
    training.scale_lr(cfg)
    assert cfg.auto_scale_lr == dict(base_batch_size=256, enable=True)
    with pytest.raises(ValueError, match='base_batch_size'):
        training.scale_lr(Config(dict(a=1)))


def test_tta_wraps_the_model():
    cfg = Config(dict(
        model=dict(type='A'), tta_model=dict(type='B'), tta_pipeline=[1],
        test_dataloader=dict(dataset=dict(pipeline=[2]))))  # yapf: disable
    training.use_tta(cfg)
    assert cfg.model == dict(type='B', module=dict(type='A'))
    assert cfg.test_dataloader.dataset.pipeline == [1]


@pytest.mark.parametrize('scope', TASKS)
def test_pictures_are_drawn_in_every_framework(scope, tmp_path):
    pytest.importorskip(scope, reason=f'{scope} is not installed')
    cfg = Config(dict(default_scope=scope, default_hooks={}, visualizer={}))
    training.show_predictions(cfg, False, str(tmp_path), 5, 0.)
    Visualizer.get_instance('pictures')
    with DefaultScope.overwrite_default_scope(scope):
        hook = HOOKS.build(cfg.default_hooks.visualization)
    assert hook.interval == 5 and not hook.show
    assert hook.draw if scope in ('mmseg', 'mmdet') else hook.enable
    assert str(tmp_path) in (cfg.visualizer.get('save_dir'),
                             getattr(hook, 'test_out_dir', None),
                             getattr(hook, 'out_dir', None))


def test_pictures_of_another_framework_are_rejected():
    with pytest.raises(ValueError, match='mmpretrain.*mmyolo'):
        training.show_predictions(
            Config(dict(default_scope='mmyolo')), True, None, 1, 0.)


def test_work_dir_comes_from_the_command_line_then_the_config():
    cfg = Config.fromfile(CONFIG)
    training.set_work_dir(cfg, None)
    assert cfg.work_dir == 'work_dirs/hrformer_t_coco_256x192'
    training.set_work_dir(cfg, 'here')
    training.set_work_dir(cfg, None)
    assert cfg.work_dir == 'here'


def test_options_reach_lists_and_new_keys_of_the_runner():
    cfg = Config(dict(a=ConfigDict(b=[dict(c=1)])))
    training.merge_options(cfg, {'a.b.0.c': 2, 'randomness.seed': 3,
                                 'compile': True})
    assert cfg.a.b[0].c == 2 and cfg.randomness.seed == 3 and cfg.compile


# Scripts and help


def test_config_is_printed_and_saved(capsys, tmp_path):
    tool('print_config')(
        [CONFIG, '--cfg-options', 'model.backbone.arch=small'])
    assert "arch='small'" in capsys.readouterr().out
    saved = tmp_path / 'row.py'
    tool('print_config')([CONFIG, '--save-path', str(saved)])
    assert Config.fromfile(saved).model == Config.fromfile(CONFIG).model


@pytest.mark.parametrize('name, flags', [
    ('train', '--work-dir --data-root --resume --amp --no-validate '
     '--auto-scale-lr --show-dir --show --cfg-options --launcher '
     '--local-rank'),
    ('test', '--work-dir --data-root --out --dump --tta --show-dir --show '
     '--cfg-options --launcher --local-rank'),
    ('print_config', '--save-path --data-root --cfg-options'),
])
def test_help_has_the_flags(name, flags, capsys):
    with pytest.raises(SystemExit) as exit:
        tool(name)(['--help'])
    text = capsys.readouterr().out
    assert exit.value.code == 0 and 'HRFORMER_MM_TRACEBACK=1' in text
    assert all(flag in text for flag in flags.split())


@pytest.mark.parametrize('name', [
    'train', 'test', 'print_config', 'quickstart',
    'paper_tables', 'convert_checkpoint', 'publish_model', 'reproduce',
    'browse_dataset', 'check_dataset', 'analysis/get_flops',
    'analysis/plot_curves', 'analysis/visualize'
])
def test_help_ends_with_examples_that_name_the_tool(name, capsys):
    with pytest.raises(SystemExit) as exit:
        tool(name)(['--help'])
    description, _, examples = capsys.readouterr().out.partition('\nexample')
    assert exit.value.code == 0 and '  --' in description
    assert f'{name}.' in examples  # the .py, or the .sh that starts it


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Run a launcher with a python and an srun that print what they get."""
    fake = tmp_path / 'fake'
    fake.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} '
                    '"$@"\necho $0 "$@"\n')
    fake.chmod(0o755)
    (tmp_path / 'srun').symlink_to(fake)
    monkeypatch.setenv('PATH', f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv('PYTHON', str(fake))
    monkeypatch.setenv('PREFLIGHT', '0')  # test_preflight.py has it

    def run(name, *args, **env):
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        return subprocess.run(['bash', str(ROOT / 'tools' / name), *args],
                              text=True, capture_output=True)

    return run


def test_dist_train_starts_one_process_per_gpu(script):
    words = script('dist_train.sh', 'row.py', '4', '--resume').stdout.split()
    tool_at = words.index(str(ROOT / 'tools/train.py'))
    assert words[1:3] == ['-m', 'hrformer_mm.engine.launch']
    assert words[tool_at + 1:] == ['row.py', '--resume', '--launcher',
                                   'pytorch']
    options = dict(zip(words[3:tool_at:2], words[4:tool_at:2]))
    port = options.pop('--master_port')
    assert 1024 < int(port) < 65536  # a free one
    assert options == {'--nnodes': '1', '--node_rank': '0',
                       '--nproc_per_node': '4',
                       '--master_addr': '127.0.0.1'}  # yapf: disable


def test_machines_agree_on_address_and_port(script):
    env = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1')
    args = ('dist_test.sh', 'row.py', 'x.pth', '8', '--tta')
    text = script(*args, **env).stdout
    assert '--nnodes 2 --node_rank 1 --nproc_per_node 8' in text
    assert '--master_addr 10.0.0.1 --master_port 29500' in text
    assert text.strip().endswith(
        'test.py row.py x.pth --tta --launcher pytorch')
    assert '--master_port 1234 ' in script(*args, **env, PORT='1234').stdout


def test_slurm_scripts_request_the_gpus(script):
    text = script('slurm_train.sh', 'part', 'job', 'row.py', 'dir', '--amp',
                  GPUS='16', SRUN_ARGS='--qos high').stdout
    for words in ('-p part --job-name=job --gres=gpu:8 --ntasks=16 '
                  '--ntasks-per-node=8 --cpus-per-task=5', '--qos high',
                  'train.py row.py --work-dir dir --amp --launcher slurm'):
        assert words in text
    text = script('slurm_test.sh', 'part', 'job', 'row.py', 'x.pth', '--tta',
                  GPUS='4').stdout
    assert '--gres=gpu:4 --ntasks=4 --ntasks-per-node=4' in text
    assert text.strip().endswith('test.py row.py x.pth --tta --launcher slurm')


@pytest.mark.parametrize('name, words', [
    ('dist_train.sh', 'CONFIG GPUS'),
    ('dist_test.sh', 'CONFIG CHECKPOINT GPUS'),
    ('slurm_train.sh', 'PARTITION JOB CONFIG WORK_DIR'),
    ('slurm_test.sh', 'PARTITION JOB CONFIG CHECKPOINT'),
])
def test_scripts_without_arguments_print_their_usage(name, words, script):
    done = script(name)
    assert done.returncode == 2 and words in done.stderr


@pytest.mark.parametrize('name', [
    'dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh',
    'setup_env.sh', 'run_tests.sh', 'test_matrix.sh', 'quickstart.sh'])
def test_scripts_explain_themselves(name):
    done = subprocess.run(['bash', str(ROOT / 'tools' / name), '--help'],
                          capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    assert f'tools/{name}' in done.stdout or name == 'quickstart.sh'
    assert 'pipefail' not in done.stdout and len(done.stdout) > 80


def test_a_base_of_an_old_config_that_moved_is_located(tmp_path):
    config = tmp_path / 'own.py'
    config.write_text(
        f"_base_ = {str(CONFIGS / '_base_/pose/hrformer_s.py')!r}")
    with pytest.raises(ValueError, match='moved to .*/models/hrformer_s.py'):
        training.read_config(str(config))
