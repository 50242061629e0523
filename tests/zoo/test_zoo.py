# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Metafiles: their schema, who else reads them, and the tables they make."""
import runpy
import textwrap
import warnings

import pytest
import torch
import yaml
from helpers import ROOT
from mmengine.config import utils as config_utils

from hrformer_mm import zoo
from hrformer_mm.core import ARCHS
from hrformer_mm.utils import paths
from hrformer_mm.zoo import tables

ENTRIES = yaml.safe_load(
    textwrap.dedent(
        zoo.entries.__doc__.split('Example::')[1].split('A metric we')[0]))
MEASURED = dict(Command='bash x', Commit='1a2b3c4', Machine='8x A100')
CONFIG = '''
default_scope = 'mmpose'
model = dict(
    type='TopdownPoseEstimator',
    backbone=dict(type='hrformer_mm.HRFormer', arch='{arch}',
                  out_indices=(0, ), upsample='bilinear'),
    head=dict(type='HeatmapHead', in_channels={channels}, out_channels=17,
              deconv_out_channels=None))
'''


@pytest.fixture
def small_zoo(tmp_path, monkeypatch):
    """A zoo of one config and one missing entry: the example of the module."""
    folder = tmp_path / 'configs' / 'pose'
    folder.mkdir(parents=True)
    (folder / 'hrformer_b_coco_384x288.py').write_text(
        CONFIG.format(arch='base', channels=78))
    (folder / 'metafile.yml').write_text(yaml.safe_dump(ENTRIES))
    (tmp_path / 'README.md').write_text(
        'Before\n<!-- table: pose -->\n<!-- end -->\nAfter\n'
        '<!-- table: table-3 -->\nold\n<!-- end -->\n')
    (tmp_path / 'model-index.yml').write_text(
        'Import:\n- configs/pose/metafile.yml\n')
    for module in (zoo, zoo.entries):
        monkeypatch.setattr(module, 'root', lambda: tmp_path)
    return tmp_path


def parse(**changes):
    """The example's first entry with some keys changed or (None) removed."""
    entry = {**ENTRIES['Models'][0], **changes}
    entry = {k: v for k, v in entry.items() if v is not None}
    return zoo.entries.parse_entry(entry, 'pose', 'pose/metafile.yml',
                                   'Config')


def test_example_of_the_docstring_is_read(small_zoo):
    entry, missing = zoo.list_entries()
    assert entry.name == 'hrformer_b_coco_384x288' and entry.path.is_file()
    assert entry.parameters == 43211777 and entry.task == 'pose'
    assert entry.flops == 30453133512
    assert entry.paper['Table 3'].metrics['AP'] == 77.2
    assert entry.official.by == 'official code'
    assert entry.third_party[0].metrics['AR'] == 82.3
    assert entry.results[0].metrics == {} and entry.results[0].measured is None
    assert missing.reason and not missing.config
    assert missing.paper['Table 3'].metrics == zoo.UNKNOWN


def test_entries_are_found_by_table_task_and_name(small_zoo):
    assert len(zoo.list_entries(table='Table 3')) == 2
    assert len(zoo.list_entries(table='Table 10', task='pose')) == 1
    assert zoo.list_entries(task='seg') == []
    entry = zoo.load_entry('configs/pose/hrformer_b_coco_384x288.py')
    assert zoo.get_config(entry.name).model.backbone.arch == 'base'


@pytest.mark.parametrize('call, match', [
    (lambda: zoo.list_entries(table='3'), "'Table 3'"),
    (lambda: zoo.list_entries(task='depth'), "'pose', 'seg', 'cls', 'det'"),
    (lambda: zoo.load_entry('hrformer_coco'), 'hrformer_b_coco_384x288'),
    (lambda: zoo.get_config('prtr_coco_384x288'), 'not written yet'),
    (lambda: tables.render('table-12'), 'table-11'),
], ids=['table', 'task', 'name', 'missing', 'render'])  # yapf: disable
def test_a_wrong_word_names_the_choices(small_zoo, call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize('changes, match', [
    (dict(Config=None), 'must have Config'),
    (dict(Reason='none'), 'Reason if it is Missing'),
    (dict(Config='configs/pose/other.py'), 'must be named as'),
    (dict(Measurd={}), 'measurd'),
    (dict(Official=dict(Metrics={})), "missing \\['source'\\]"),
    (dict(Paper={'Table 12': {'Row': 'x'}}), 'Table 12'),
    (dict(Paper={'Table 3': {'Row': 'x', 'Params': '1M'}}), 'params'),
    (dict(Paper={'Table 3': 'unknown'}), 'Table 3 must be a mapping'),
    (dict(Results=[dict(Task='a', Dataset='b', Metrics=dict(AP=1))]),
     'does not say how'),
    (dict(Results=[dict(Task='a', Dataset='b', Metrics=dict(AP=1),
                        Measured=dict(Commit='x'))]), "'command', 'machine'"),
], ids=range(10))  # yapf: disable
def test_an_entry_that_violates_the_schema_is_rejected_with_its_place(
        changes, match):
    with pytest.raises(ValueError, match=match) as error:
        parse(**changes)
    assert 'pose/metafile.yml: hrformer_b_coco_384x288' in str(error.value)


def test_a_measured_result_says_how():
    result = dict(Task='a', Dataset='b', Metrics=dict(AP=1), Measured=MEASURED)
    assert parse(Results=[result]).results[0].measured.commit == '1a2b3c4'


@pytest.mark.parametrize('place', ['.', 'hrformer_mm/.mim'])
def test_configs_are_found_in_a_checkout_and_in_an_install(
        place, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, 'PACKAGE', tmp_path / 'hrformer_mm')
    with pytest.raises(FileNotFoundError, match='found no configs in'):
        zoo.root()
    (tmp_path / place / 'configs' / '_base_').mkdir(parents=True)
    assert zoo.root() == (tmp_path / place).resolve()


@pytest.mark.parametrize('name, size', [
    ('hrformer_b_coco_384x288.py', (384, 288)),
    ('configs/seg/hrformer_b_cityscapes_512x1024_w15.py', (512, 1024)),
    ('hrformer_t_imagenet_224_nodw', (224, 224)),
    ('hrnet_w48_coco_256x192_testdev', (256, 192)),
])
def test_name_contains_the_input_size(name, size):
    assert zoo.input_size(name) == size


def test_a_name_without_input_size_is_rejected():
    with pytest.raises(ValueError, match='does not say its input size'):
        zoo.input_size('my_w15_config')


def test_model_is_built_without_memory_or_weights(small_zoo):
    model = zoo.build_model(zoo.get_config('hrformer_b_coco_384x288'))
    assert {p.device.type for p in model.parameters()} == {'meta'}
    assert sum(p.numel() for p in model.parameters()) == 43211777


def test_printed_and_counted_stand_side_by_side(small_zoo):
    text = tables.render('table-3')
    ours, missing = text.splitlines()[2:]
    assert all(cell in ours for cell in (
        '43.2M  | 43.2M', '26.8   | 26.8', '30.5', '77.2', 'MMPose 1.x'))
    assert 'none: not written yet' in missing and 'unknown' in missing
    assert 'AP (paper)' in text and 'measured here' in text


def test_documents_are_written_between_their_markers(small_zoo):
    assert tables.stale_documents()
    readme = small_zoo / 'README.md'
    text = tables.refresh(readme.read_text(), small_zoo)
    readme.write_text(text)
    assert text.startswith('Before\n<!-- table: pose -->\n\n| model')
    assert '](configs/pose/hrformer_b_coco_384x288.py)' in text
    assert 'old' not in text and 'PRTR' in text
    assert tables.refresh(text, small_zoo) == text
    assert tables.drift() == []


def test_outdated_documents_are_reported(small_zoo):
    readme = small_zoo / 'README.md'
    text = tables.refresh(readme.read_text(), small_zoo)
    readme.write_text(text.replace('77.2', '77.9'))
    problem, *_ = tables.drift()
    assert problem.startswith('README.md: table pose is stale')
    assert '| 77.2 |' in problem
    folder = small_zoo / 'configs' / 'pose'
    config = folder / 'hrformer_b_coco_384x288.py'
    config.write_text(CONFIG.format(arch='small', channels=32))
    (folder / 'extra_coco_64.py').write_text('')
    assert tables.drift() == [
        'configs/pose/extra_coco_64.py: no metafile has it',
        'hrformer_b_coco_384x288: the metafile says 43211777 parameters, it '
        'has 7746779',
        'hrformer_b_coco_384x288: the metafile says 30453133512 FLOPs, it has '
        f"{tables.count_entry(zoo.list_entries()[0]).total('macs')}"
    ]
    config.unlink()
    assert 'is in a metafile but not there' in tables.drift()[-1]


def test_sizes_are_as_printed_in_table_2():
    assert set(tables.PRINTED_ARCHS) == set(ARCHS)
    assert tables.render('table-2').count('as printed') == 3


def test_mim_reads_the_metafiles(small_zoo, monkeypatch):
    # mim imports setuptools, which refuses to come after Python's distutils.
    monkeypatch.setenv('SETUPTOOLS_USE_DISTUTILS', 'stdlib')
    pytest.importorskip('mim', reason='mim is not installed')
    from mim.commands.search import convert2df
    from modelindex.load_model_index import load
    frame = convert2df(load(str(small_zoo / 'model-index.yml')))
    assert list(frame.index) == ['hrformer_b_coco_384x288']
    line = frame.loc['hrformer_b_coco_384x288']
    assert line.parameters == 43211777 and line.model == 'hrformer'
    assert line.config == 'configs/pose/hrformer_b_coco_384x288.py'


def test_mmengine_finds_a_config_in_the_metafiles(small_zoo):
    (small_zoo / 'package').mkdir()
    (small_zoo / 'package' / '.mim').symlink_to(small_zoo)
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # it warns of entries without Config
        found = config_utils._get_cfg_metainfo(
            str(small_zoo / 'package'), 'pose/hrformer_b_coco_384x288.py')
    assert found['Name'] == 'hrformer_b_coco_384x288'


# The files of this repository.

LISTED = zoo.list_entries()
WITH_CONFIG = [entry for entry in LISTED if entry.config]


def test_every_config_has_an_entry_and_every_entry_a_config():
    listed = [entry.config for entry in WITH_CONFIG]
    assert sorted(listed) == sorted(zoo.config_files())
    assert len({entry.name for entry in LISTED}) == len(LISTED)


# One of each method and task; the slow test of all that drifts builds all.
FIRST = list({(entry.task, entry.name.split('_')[0]): entry
              for entry in reversed(WITH_CONFIG)}.values())


@pytest.mark.parametrize('entry', FIRST, ids=lambda entry: entry.name)
def test_config_has_the_parameters_of_its_entry(entry):
    assert tables.count_parameters(entry) == entry.parameters


def test_all_entries_have_parameters_and_flops():
    assert [entry.name for entry in WITH_CONFIG
            if not (entry.parameters and entry.flops)] == []


def test_every_table_of_the_paper_has_entries():
    found = {table for entry in LISTED for table in entry.paper} | {'Table 2'}
    assert found == set(zoo.TABLES)


@pytest.mark.parametrize('task', zoo.TASKS)
def test_model_index_imports_every_metafile(task):
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert f'configs/{task}/metafile.yml' in index['Import']


@pytest.mark.parametrize('task', zoo.TASKS)
def test_every_entry_is_of_a_collection_that_mim_can_name(task):
    path = ROOT / 'configs' / task / 'metafile.yml'
    content = yaml.safe_load(path.read_text())
    named = {c['Name'] for c in content['Collections']}
    used = {entry['In Collection'] for entry in content['Models']}
    assert used == named
    assert all(
        (ROOT / c['README']).is_file() for c in content['Collections'])


def run_tool(*arguments):
    main = runpy.run_path(str(ROOT / 'tools' / 'paper_tables.py'))['main']
    main(list(arguments))


def test_tool_prints_writes_and_checks(small_zoo, capsys):
    run_tool('table-2')
    assert 'HRFormer-T | (1, 1, 3, 2)' in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        run_tool('--check')
    assert ended.value.code == 1
    assert 'README.md: table pose' in capsys.readouterr().out
    run_tool('--markdown')
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_tool('--check')
    assert ended.value.code == 0
    assert capsys.readouterr().out == 'configs, metafiles and tables agree\n'


def test_torch_default_device_is_left_alone(small_zoo):
    zoo.build_model(zoo.get_config('hrformer_b_coco_384x288'))
    assert torch.empty(1).device.type == 'cpu'


@pytest.mark.slow
def test_configs_metafiles_and_tables_of_this_repository_agree():
    assert tables.drift() == []
