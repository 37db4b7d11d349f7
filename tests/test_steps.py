"""Steps of tables: what is refused, what rows need, and that each is made once and never taken for another one."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from fer_jax.errors import UserError
from fer_jax.steps import check_steps, make_steps, steps_for
from fer_jax.table import Table, TableRow, TableStep
from fer_jax.tables import jobs_of

CONFIG = """
from fer_jax.config import default_config

def get_config(rate='0.1'):
    config = default_config()
    config.optimizer.learning_rate = float(rate)
    return config
"""
PAIRS = TableStep('pairs', ('train', '--config={config}', '--workdir={{here}}', '--config.seed={{seed}}'), True)
AUDIT = TableStep('audit', ('audit', '--run={pairs}', '--output={here}'), True, ('--share=.5',))
SHARED = TableStep('shared', ('draw', '--seed={seed}', '--output={here}'))


@pytest.fixture
def table(tmp_path):
    config = tmp_path / 'tiny.py'
    config.write_text(CONFIG)
    pairs = dataclasses.replace(PAIRS, command=[word.format(config=config) for word in PAIRS.command])
    rows = [
        TableRow('all', str(config), 'single'),
        TableRow('less', str(config), 'single', overrides={'data.exclude': '{audit}/audit.csv'}, baselines=('all',)),
    ]
    return Table('T', 'synthetic', 'o', rows, steps=[pairs, AUDIT, SHARED])


@pytest.fixture
def made():
    """Stands in for running commands: leaves an empty directory, and notes what it was asked for."""
    commands = []

    def run(command):
        commands.append(command)
        place = next(word for word in command if word.startswith(('--output=', '--workdir=')))
        Path(place.partition('=')[2]).mkdir(parents=True)

    run.commands = commands
    return run


def test_a_row_needs_the_steps_that_it_names_and_those_that_they_read(table, tmp_path):
    output = tmp_path / 'out'
    plain, less = (jobs_of(row, output, table=table) for row in table.rows)
    assert [list(job.steps) for job in plain] == [[]] * 3
    assert [list(job.steps) for job in less] == [['pairs', 'audit']] * 3
    job = less[1]
    assert job.config().data.exclude == (f'{output}/steps/audit/seed1/audit.csv',)
    assert job.workdir == output / 'tiny_exclude=audit-audit.csv' / 'seed1'
    assert job.steps['audit'].command() == [
        'audit',
        f'--run={output}/steps/pairs/seed1',
        f'--output={output}/steps/audit/seed1',
    ]
    assert job.steps['pairs'].command()[-1] == '--config.seed=1'
    shared = steps_for(table, ['shared'], 2, output, False)['shared']
    assert shared.command() == ['draw', '--seed=0', f'--output={output}/steps/shared/all']


def test_steps_are_made_once_in_order_and_again_where_they_were_interrupted(table, tmp_path, made):
    jobs = lambda: steps_for(table, ['audit'], 0, tmp_path / 'out', False)
    said = []
    make_steps(jobs(), made, said.append)
    assert [command[0] for command in made.commands] == ['train', 'audit']
    assert said == [f'step {name}: {tmp_path}/out/steps/{name}/seed0' for name in ('pairs', 'audit')]
    make_steps(jobs(), made, said.append)
    assert len(made.commands) == 2 and len(said) == 2

    def killed(command):
        raise KeyboardInterrupt

    shutil.rmtree(tmp_path / 'out' / 'steps' / 'audit')
    with pytest.raises(KeyboardInterrupt):
        make_steps(jobs(), killed, said.append)
    make_steps(jobs(), made, said.append)
    assert [command[0] for command in made.commands] == ['train', 'audit', 'audit']


def test_a_step_made_otherwise_is_refused_and_so_is_all_that_was_made_from_it(table, tmp_path, made):
    make_steps(steps_for(table, ['audit'], 0, tmp_path / 'out', False), made, print)
    (tmp_path / 'tiny.py').write_text(CONFIG.replace('0.1', '0.2'))
    message = r"step 'pairs': .*/pairs/seed0 was made with another config .optimizer.learning_rate: 0.1 there, 0.2 now"
    with pytest.raises(UserError, match=message):
        make_steps(steps_for(table, ['audit'], 0, tmp_path / 'out', False), made, print)
    shutil.rmtree(tmp_path / 'out' / 'steps' / 'pairs')  # made anew; the audit was of the old one
    with pytest.raises(UserError, match=r"step 'audit': .* was made with another inputs .pairs: "):
        make_steps(steps_for(table, ['audit'], 0, tmp_path / 'out', False), made, print)
    changed = dataclasses.replace(
        table, steps=[table.steps[0], dataclasses.replace(AUDIT, command=('audit', '{here}'))]
    )
    with pytest.raises(UserError, match="step 'audit': .* another command "):
        make_steps(steps_for(changed, ['audit'], 0, tmp_path / 'out', False), made, print)


def test_an_output_that_was_moved_is_the_same_one(table, tmp_path, made):
    make_steps(steps_for(table, ['audit'], 0, tmp_path / 'out', False), made, print)
    (tmp_path / 'out').rename(tmp_path / 'elsewhere')
    make_steps(steps_for(table, ['audit'], 0, tmp_path / 'elsewhere', False), made, print)
    assert len(made.commands) == 2


def test_a_record_that_cannot_be_read_is_one_line(table, tmp_path, made):
    jobs = steps_for(table, ['shared'], 0, tmp_path / 'out', False)
    make_steps(jobs, made, print)
    assert json.loads(jobs['shared'].record.read_text())['seed'] == 0
    jobs['shared'].record.write_text('{')
    with pytest.raises(UserError, match='all.json cannot be read'):
        make_steps(jobs, made, print)


def test_a_rehearsal_shortens_what_has_a_config_and_adds_the_steps_own_flags(table, tmp_path):
    pairs, audit = steps_for(table, ['audit'], 0, tmp_path, True).values()
    assert {'--config.train.steps=2', '--config.data.synthetic.num_train=96'} <= set(pairs.command())
    assert audit.command()[-1] == '--share=.5'


@pytest.mark.parametrize(
    ('steps', 'message'),
    [
        (['pairs'], "step 'pairs' is no TableStep"),
        ([TableStep('a b', ('x',))], "step 'a b' is no TableStep with a word of its own"),
        ([TableStep('seed', ('x',))], "step 'seed' is no TableStep with a word"),
        ([SHARED, SHARED], "step 'shared' is no TableStep with a word of its own"),
        ([TableStep('a', 'x --y')], "step 'a' needs a command, a list"),
        ([AUDIT], "step 'audit' names {pairs}, which is no step before it"),
        ([PAIRS, TableStep('a', ('x', '{pairs}'))], "'a' is one for all seeds and reads 'pairs', one per seed"),
        ([SHARED], "row 'less' names {audit}, which is no step of the table"),
    ],
)
def test_steps_that_cannot_be_are_refused(table, steps, message):
    steps = [dataclasses.replace(step, command=['x']) if step is PAIRS else step for step in steps]
    with pytest.raises(UserError, match=message):
        check_steps('t.py', dataclasses.replace(table, steps=steps))


def test_a_field_that_came_to_be_later_changes_no_step(table, tmp_path, made):
    jobs = jobs_of(table.rows[1], tmp_path / 'out', table=table)[0].steps
    make_steps(jobs, made, lambda _: None)
    for job in jobs.values():  # as it was written before `cyclegan.cycle` was a field
        there = json.loads(job.record.read_text())
        if 'config' in there:
            del there['config']['cyclegan.cycle']
            job.record.write_text(json.dumps(there))
    assert all(job.is_done() for job in jobs.values())
    there['config' if 'config' in there else 'seed'] = {'cyclegan.cycle': 1.0}
    job.record.write_text(json.dumps(there))
    with pytest.raises(UserError, match='was made with another'):
        job.is_done()
