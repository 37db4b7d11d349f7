"""Figures: each function takes numbers, draws one picture and returns the path of its PNG."""

from fer_jax.reports._calibration import reliability
from fer_jax.reports._classes import (
    class_counts,
    confusion,
    f1_per_class,
    performance_distribution,
    single_against_ensemble,
)
from fer_jax.reports._faces import confident_errors, example_faces, pick_confident_errors, pick_per_class
from fer_jax.reports._history import epoch_history, has_history, read_metrics
from fer_jax.reports._translations import translation_sheet

__all__ = [
    'class_counts',
    'confident_errors',
    'confusion',
    'epoch_history',
    'example_faces',
    'f1_per_class',
    'has_history',
    'performance_distribution',
    'pick_confident_errors',
    'pick_per_class',
    'read_metrics',
    'reliability',
    'single_against_ensemble',
    'translation_sheet',
]
