"""The page of `fer_jax.report`: workdirs side by side in one HTML file that needs nothing else."""
