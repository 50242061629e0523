# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Files for GitHub and contributors agree with the rest of the project."""
import re
import shlex
import subprocess

import pytest
import yaml
from helpers import ROOT

from hrformer_mm.version import __version__

WORKFLOW = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text())
README = (ROOT / 'README.md').read_text()
CONTRIBUTING = (ROOT / 'CONTRIBUTING.md').read_text()
SCRIPT = re.compile(r'bash (tools/\w+\.sh)')


def steps():
    return [step['run'] for job in WORKFLOW['jobs'].values()
            for step in job['steps'] if 'run' in step]


def commands_for_contributors():
    block = re.search(r'```bash\n(.*?)```', CONTRIBUTING, re.DOTALL)
    return block[1].splitlines()


def test_ci_lints_tests_old_and_new_versions_and_builds_the_wheel():
    assert set(WORKFLOW['jobs']) == {'lint', 'tests', 'versions', 'wheel'}
    matrix = WORKFLOW['jobs']['versions']['strategy']['matrix']['include']
    assert [case['versions'] for case in matrix] == ['oldest', 'newest']
    assert any('--lint' in step for step in steps())


@pytest.mark.parametrize('command', steps() + commands_for_contributors())
def test_scripts_options_and_tests_of_commands_exist(command):
    for script in SCRIPT.findall(command):
        text = (ROOT / script).read_text()
        for option in re.findall(r' (--[a-z]+)', command):
            if option not in ('--no-deps', '--wheel-dir'):
                assert option in text
    for word in shlex.split(command):
        if word.startswith('tests/'):
            assert (ROOT / word).exists()


@pytest.mark.parametrize('script', ['tools/run_tests.sh'])
def test_scripts_are_valid_bash(script):
    subprocess.run(['bash', '-n', str(ROOT / script)], check=True)


def test_metadata_and_readme_name_the_same_python_versions():
    setup = (ROOT / 'setup.cfg').read_text()
    minors = re.findall(r':: Python :: 3\.(\d+)$', setup, re.MULTILINE)
    assert f'python_requires = >=3.{minors[0]}' in setup
    assert f'\nPython 3.{minors[0]} to 3.{minors[-1]} ' in README


def test_readme_counts_the_configs_and_the_datasets_beyond_the_paper():
    of_paper = {'coco', 'imagenet', 'cityscapes', 'ade20k', 'pascal-context',
                'pascal-context-60', 'coco-stuff', 'coco-stuff-164k',
                'synthetic', 'digits'}
    names = [path.stem for path in (ROOT / 'configs').glob('[!_]*/*.py')
             if not path.stem.startswith('custom')]
    others = [name.split('_')[2] for name in names
              if name.split('_')[2] not in of_paper]
    datasets = {re.sub('-(split|sub)[0-9]$|-(full|upper|lower)$', '', name)
                for name in others}
    counted = (f'{len(names)} configs, {len(others)} of them for '
               f'{len(datasets)} datasets')
    assert counted in ' '.join(README.split())


def test_reports_ask_for_the_environment():
    folder = ROOT / '.github/ISSUE_TEMPLATE'
    for name in ('bug', 'results'):
        form = yaml.safe_load((folder / f'{name}.yml').read_text())
        asked = next(x for x in form['body'] if x.get('id') == 'environment')
        assert 'hrformer_mm.check_env' in asked['attributes']['label']
        assert asked['validations']['required']


@pytest.mark.parametrize('name', ['bug', 'feature', 'results'])
def test_issue_forms_have_what_github_demands(name):
    path = ROOT / f'.github/ISSUE_TEMPLATE/{name}.yml'
    form = yaml.safe_load(path.read_text())
    assert form['name'] and form['description'] and form['body']
    ids = [x['id'] for x in form['body']]
    assert len(ids) == len(set(ids))
    for x in form['body']:
        assert x['type'] in ('input', 'textarea') and x['attributes']['label']


def test_versions_agree():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == __version__
    changes = (ROOT / 'CHANGELOG.md').read_text()
    version, note = re.findall(r'^## (\S+)(.*)', changes, re.MULTILINE)[0]
    is_development = __version__.endswith('.dev0')
    assert __version__.removesuffix('.dev0') == version
    assert ('unreleased' in note) == is_development


def test_the_paper_is_cited():
    paper = yaml.safe_load(
        (ROOT / 'CITATION.cff').read_text())['preferred-citation']
    readme = (ROOT / 'README.md').read_text()
    assert paper['title'] in readme and paper['year'] == 2021
    assert all(f"{a['given-names']} {a['family-names']}" in readme
               for a in paper['authors'])


def test_links_for_contributors_exist():
    links = re.findall(r'\]\(([^)#]+)\)', CONTRIBUTING)
    local = [link for link in links if '://' not in link]
    assert local and all((ROOT / link).exists() for link in local)


@pytest.mark.parametrize(
    'path', ['CONTRIBUTING.md', 'CITATION.cff', 'CHANGELOG.md'])
def test_the_source_archive_takes_the_project_files(path):
    manifest = (ROOT / 'MANIFEST.in').read_text().split()
    assert path in manifest
