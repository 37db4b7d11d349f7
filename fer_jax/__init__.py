"""fer_jax trains, ensembles and audits facial-expression classifiers in JAX."""

__version__ = '0.1.0'
