# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Tables, figures and metafile entries of the study on real datasets."""
import json
from types import SimpleNamespace

import cv2
import pytest
import yaml

from benchmarks.real_data import report, run
from hrformer_mm import zoo
from hrformer_mm.zoo import study, tables

MACHINE = dict(device='a CPU, 2 threads', torch='2.14', commit='1a2b3c4')
METAFILE = """Models:
- Name: net_t
  Config: configs/pose/net_t.py
  Results:
  - Task: Body 2D Keypoint
    Dataset: LSPET
    Metrics: {}
- Name: net_t_lspet_112x112_nodw
  Config: configs/pose/net_t_lspet_112x112_nodw.py
  Results:
  - Task: Body 2D Keypoint
    Dataset: LSPET
    Metrics: {}
  Weights: w.pth
"""


def trial(config='pose/net_t', seed=0, tpck=.5, **changes):
    name = config.rpartition('/')[2]
    return dict(dict(
        study='lspet', config=config, seed=seed, split='val, 500 people',
        metrics=dict(PCK=tpck + .1, tPCK=tpck), parameters=2_500_000,
        macs=1_250_000_000, input=[112, 112], budget=dict(max_epochs=20),
        batch_size=32, training_seconds=1800,
        curves={'val/tPCK': [[10, tpck / 2], [20, tpck]], 'loss': [[1, 3.]]},
        command=f'python -m benchmarks.real_data.run lspet --data-root DATA '
        f'--only {name}_seed{seed}', machine=MACHINE), **changes)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose study has three trainings of two configs."""
    folder = tmp_path / study.FOLDER
    folder.mkdir(parents=True)
    for t in (trial(), trial(seed=1, tpck=.6),
              trial('pose/net_t_lspet_112x112_nodw', tpck=.4)):
        name = f"{t['config'].rpartition('/')[2]}_seed{t['seed']}.json"
        (folder / name).write_text(json.dumps(t))
    metafile = tmp_path / 'configs/pose/metafile.yml'
    metafile.parent.mkdir(parents=True)
    metafile.write_text(METAFILE)
    (folder.parent / 'README.md').write_text(
        '# Study\n<!-- table: study -->\n<!-- end -->\n')
    for module in (study, zoo, zoo.entries):
        monkeypatch.setattr(module, 'root', lambda: tmp_path)
    monkeypatch.setattr(report, 'ROOT', tmp_path)
    zoo.entries.read_metafile.cache_clear()
    yield tmp_path
    zoo.entries.read_metafile.cache_clear()


def test_the_report_writes_the_table_the_metafile_and_the_figure(project):
    report.main(['--figures', str(project / 'figures')])
    table = (project / 'benchmarks/real_data/README.md').read_text()
    best, other = [' '.join(line.split()) for line in table.splitlines()
                   if 'net_t' in line]
    assert best == ('| lspet | net_t | 112x112 | 20 epochs, batch 32 | 2.50M |'
                    ' 1.250 | PCK@0.2 of the torso: 55.00 (50.00 to 60.00) |')
    assert 'net_t_lspet_112x112_nodw' in other and ': 40.00 |' in other
    short = tables.render('study-summary').splitlines()
    assert [[cell.strip() for cell in line.split('|')[1:-1]]
            for line in (short[0], *short[2:])] == [
        ['network', 'lspet, PCK@0.2 of the torso'],
        ['net-T', '55.00 ± 5.00'],
        ['net-T, without depth-wise conv', '40.00']]
    entries = yaml.safe_load(
        (project / 'configs/pose/metafile.yml').read_text())['Models']
    (first, ), (second, ) = (entry['Results'] for entry in entries)
    assert first['Metrics'] == dict(tPCK=55., PCK=65.)
    assert first['Measured']['Commit'] == '1a2b3c4'
    assert "--only 'net_t_seed*'" in first['Measured']['Command']
    assert second['Metrics'] == dict(tPCK=40., PCK=50.)
    assert entries[1]['Weights'] == 'w.pth'
    figure = cv2.imread(str(project / 'figures/lspet.png'))
    assert figure.shape[1] > 1000 and figure.std() > 5


def test_stale_metafiles_and_tables_are_found(project):
    entries = zoo.list_entries(task='pose')
    problems = study.contradictions(entries)
    assert len(problems) == 2 and 'net_t: the metafile has' in problems[0]
    assert any('table study is stale' in p for p in tables.stale_documents())
    report.main(['--figures', str(project / 'figures')])
    zoo.entries.read_metafile.cache_clear()
    assert study.contradictions(zoo.list_entries(task='pose')) == []
    assert tables.stale_documents() == []


def test_the_error_in_pixels_ranks_from_low_to_high():
    trials = [trial(c, metrics=dict(EPE=e)) for c, e in (
        ('pose/far', 5.), ('pose/near', 2.))]
    lines = study.study_table(trials).splitlines()
    assert 'near' in lines[2] and lines[2].rstrip(' |').endswith('2.00')


def test_the_summary_leaves_out_templates_with_their_own_budget():
    lines = study.study_summary([
        trial('pose/net_t'), trial('../templates/net_s_lspet_96x96_template')])
    assert 'net-T' in lines and 'net-S' not in lines


def test_curves_have_a_band_over_seeds():
    one, = study.group([trial(), trial(seed=1, tpck=.7)])
    assert report.band(one, 'tPCK') == [
        pytest.approx((10, 30., 25., 35.)), pytest.approx((20, 60., 50., 70.))]


def test_a_report_without_results_says_how_to_get_them(project):
    for path in (project / study.FOLDER).glob('*.json'):
        path.unlink()
    with pytest.raises(SystemExit, match='run python -m benchmarks'):
        report.main([])


def test_the_trials_of_the_study_name_configs_that_exist():
    trials = run.list_trials('all')
    for t in trials:
        assert (run.ROOT / f'configs/{t.config}.py').is_file(), t
    assert len({t.name for t in trials}) == len(trials)
    seeds = {t.seed for t in trials if 'nodw' not in t.name
             and t.study in ('lspet', 'camvid')}
    assert seeds == {0, 1}
    with pytest.raises(ValueError, match='choose from'):
        run.list_trials('coco')
    with pytest.raises(ValueError, match='no trial matches'):
        run.list_trials('lspet', 'resnet*')


def test_a_wrong_name_of_a_study_ends_in_one_line(capsys):
    with pytest.raises(SystemExit) as error:
        run.main(['coco', '--data-root', 'data'])
    assert error.value.code == 2
    assert 'choose from' in capsys.readouterr().err


@pytest.mark.parametrize('metrics, cell', [
    (dict(tPCK=29.07, PCK=70.6), 'tPCK 29.07, PCK 70.6'),
    (dict(AP=75.1, tPCK=29.07), 'AP 75.1')])
def test_measured_metrics_are_listed_if_none_is_the_headline(metrics, cell):
    entry = SimpleNamespace(
        task='pose', official=None, third_party=(),
        results=[SimpleNamespace(metrics=metrics)])
    cells = tables.accuracy_cells(entry, SimpleNamespace(metrics={}))
    assert cells['measured here'] == cell
