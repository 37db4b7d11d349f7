"""The feed of a run: which one every process has room for, what is held in memory for it, and its making."""

from __future__ import annotations

import os

import jax
from ml_collections import ConfigDict

from fer_jax import distributed, experiment
from fer_jax.data.dataset import Dataset, Split
from fer_jax.data.feed import FEEDS, Feed, ResidentFeed, choose_feed, free_memory
from fer_jax.data.sharded import ShardedFeed
from fer_jax.data.streaming import StreamingFeed
from fer_jax.data.workers import usable_cores
from fer_jax.training.mesh import Placement

_HELD_SHARE = 8  # validation is kept in memory if it takes at most one part in so many of what is free


def choose_feed_of_all(config: ConfigDict, dataset: Dataset, placement: Placement) -> tuple[str, str]:
    """The feed that every process has room for, and the sizes in this one."""
    local = jax.local_devices()
    num_bytes = dataset.splits['train'].images.nbytes
    hosts = {
        'on_host': distributed.sum_on_host(len(local)),
        'processes': distributed.sum_on_host(1),
        'hosts': distributed.count_hosts(),
        'cores': min(os.cpu_count() or 1, distributed.sum_on_host(usable_cores())),
    }
    name, sizes = choose_feed(config.data.feed, num_bytes, local[0], placement.num_devices, **hosts)
    return FEEDS[distributed.agree_max(FEEDS.index(name))], sizes


def hold(dataset: Dataset, feed_name: str) -> Dataset:
    """The data set with what is read again and again in memory: training images for the device, small validation."""
    validation = dataset.splits.get('validation')
    held = ['train'] if feed_name == 'resident' else []
    if validation is not None and validation.images.nbytes * _HELD_SHARE <= free_memory():
        held.append('validation')
    return experiment.hold_images(dataset, *held)


def make_feed(name: str, config: ConfigDict, placement: Placement, dispatch: int, split: Split, seed: int) -> Feed:
    order = (split, seed, config.train.batch_size, dispatch)
    if name == 'resident':
        return ResidentFeed(*order, everywhere=placement.replicated, cut=placement.split(1))
    if name == 'sharded':
        return ShardedFeed(*order, cut=placement.split(1))
    part = {'process_index': jax.process_index(), 'process_count': jax.process_count()}
    return StreamingFeed(*order, cut=placement.split(1), **part)
