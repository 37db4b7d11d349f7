"""How each workdir came about, and in what they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fer_jax.reports._markdown import devices_in_words, scaled
from fer_jax.reports.page.elements import Element, section, table, tag
from fer_jax.reports.page.scores import badge
from fer_jax.reports.page.workdirs import Workdir
from fer_jax.reports.tables import duration

_KINDS = {
    'run': 'training run',
    'evaluation': 'evaluation',
    'folds': 'cross-validation',
    'pair': 'pair of translators',
}


def facts_section(workdirs: Sequence[Workdir]) -> Element:
    """A column per workdir: data, command, seed, devices; then the fields of the configuration that differ."""
    header = ['', *([badge(workdir, index), ' ', workdir.name] for index, workdir in enumerate(workdirs))]
    facts = [_facts(workdir) for workdir in workdirs]
    names = list(facts[0])
    told = lambda value: value if value != '' else '–'
    rows = [[name, *(told(of[name]) for of in facts)] for name in names if any(of[name] != '' for of in facts)]
    parts = [table('How each came about', header, rows)]
    if len(workdirs) > 1:
        parts.append(tag('h3', 'What differs in the configuration'))
        changes = differences([workdir.description.get('config') or {} for workdir in workdirs])
        if changes:
            rows = [
                [tag('code', f'config.{name}'), *(tag('code', value) for value in values)] for name, values in changes
            ]
            parts.append(table('Fields of the configuration that differ', header, rows))
        else:
            parts.append(tag('p', 'Nothing: the configurations are equal, field by field.'))
    return section('runs', 'Runs', _notes(workdirs), parts)


def _notes(workdirs: Sequence[Workdir]) -> Element | None:
    notes = [
        tag('li', badge(workdir, index), ' ', note) for index, workdir in enumerate(workdirs) for note in workdir.notes
    ]
    return tag('ul', notes, class_='notes') if notes else None


def _facts(workdir: Workdir) -> dict[str, str | Element]:
    told = workdir.description
    entry = workdir.entry or next(iter(workdir.scores.values()), {})
    manifest, summary = _mapping(told.get('manifest')), _mapping(told.get('model_summary'))
    number = lambda name: scaled(summary[name]) if summary.get(name) is not None else ''
    return {
        'what': _KINDS[workdir.kind],
        'directory': str(workdir.directory),
        'data set': str(entry.get('dataset') or manifest.get('dataset') or ''),
        'data manifest': tag('code', str(told.get('manifest_hash') or entry.get('manifest') or '–')),
        'command': tag('code', told['command']) if isinstance(told.get('command'), str) else '',
        'seed': '' if told.get('seed') is None else str(told['seed']),
        'network': str(_mapping(_mapping(told.get('config')).get('model')).get('name') or ''),
        'parameters': f'{summary["parameters"]:,}' if summary.get('parameters') is not None else '',
        'operations per image': number('flops_per_image'),
        'time': duration(_seconds(workdir)) if _seconds(workdir) is not None else '',
        'devices': devices_in_words(_mapping(told.get('devices'))),
        'git revision': str(told.get('git_revision') or ''),
        'versions': ', '.join(f'{name} {version}' for name, version in _mapping(told.get('versions')).items()),
        'test-time views': str(entry.get('tta') or ''),
        'test was read': _test_readings(workdir),
    }


def _seconds(workdir: Workdir) -> float | None:
    if workdir.kind == 'folds':
        return sum(fold['seconds'] for fold in workdir.entry['folds']['folds'])
    last = workdir.records[-1] if workdir.records else {}
    return workdir.description.get('seconds', last.get('seconds'))


def _test_readings(workdir: Workdir) -> str:
    if workdir.kind == 'pair':
        return ''
    if workdir.kind == 'folds':
        return f'by each fold, at most {times(workdir.entry["readings"])}'
    return times(workdir.scores.get('test', {}).get('readings', 0))


def times(count: int) -> str:
    """`never`, `once`, `3 times`."""
    return {0: 'never', 1: 'once'}.get(count, f'{count} times')


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def differences(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The fields in which the configurations differ, with each one's value; '–' where one has no such field.

    A configuration without any field, an evaluation's, differs in nothing.
    """
    flat = [dict(_fields(config)) for config in configs]
    names = list(dict.fromkeys(name for fields in flat for name in fields))
    found = []
    for name in names:
        values = [repr(fields[name]) if name in fields else '–' for fields in flat]
        if len({value for value, fields in zip(values, flat, strict=True) if fields}) > 1:
            found.append((name, values))
    return found


def _fields(config: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f'{prefix}{name}.')
        else:
            yield prefix + name, value
