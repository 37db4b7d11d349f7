"""Weights with torchvision's names, and those of other runs, in our networks."""

import functools
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from fer_jax.errors import UserError
from fer_jax.models import create_model
from fer_jax.models.torchvision import COUNTERPARTS, torchvision_names
from fer_jax.pretrained import load_pretrained, recorded
from fer_jax.training.checkpoints import Checkpoints

SEVEN = tuple('abcdefg')
BLOCKS = {'resnet18': (2, 2, 2, 2), 'resnet34': (3, 4, 6, 3)}


@functools.cache
def initial(name, side=32, channels=3, classes=7):
    """Variables as a network starts, in numpy: zeros and ones where that is so, else noise."""
    random = np.random.default_rng(0)
    model = create_model(name, classes)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, channels)))
    constant = {'bias': 0.0, 'mean': 0.0, 'scale': 1.0, 'var': 1.0}

    def array(path, leaf):
        values = constant.get(path[-1].key)
        return (
            random.standard_normal(leaf.shape, np.float32)
            if values is None
            else np.full(leaf.shape, values, np.float32)
        )

    return jax.tree_util.tree_map_with_path(array, shapes)


@functools.cache
def state_dict(name, stem=3, channels=3, classes=1000):
    """Noise of ordinary size under torchvision's names and in its shapes, written down here without our code."""
    draw = functools.partial(np.random.default_rng(1).standard_normal, dtype=np.float32)
    tensors = {}

    def conv(key, inputs, outputs, side=3, bias=False):
        tensors[f'{key}.weight'] = draw((outputs, inputs, side, side)) * np.sqrt(2 / inputs / side**2)
        if bias:
            tensors[f'{key}.bias'] = 0.1 * draw(outputs)

    def norm(key, channels):
        for part, low in (('weight', 0.5), ('bias', 0), ('running_mean', 0), ('running_var', 0.5)):
            tensors[f'{key}.{part}'] = low + 0.1 * np.abs(draw(channels))
        tensors[f'{key}.num_batches_tracked'] = np.array(7)

    def dense(key, inputs, outputs):
        tensors[f'{key}.weight'] = draw((outputs, inputs)) / np.sqrt(inputs)
        tensors[f'{key}.bias'] = 0.1 * draw(outputs)

    if name == 'vgg19':
        places = [0, 3, 7, 10, 14, 17, 20, 23, 27, 30, 33, 36, 40, 43, 46, 49]  # of features, as torchvision prints it
        sizes = [channels, 64, 64, 128, 128, *[256] * 4, *[512] * 8]
        for place, inputs, outputs in zip(places, sizes[:-1], sizes[1:], strict=True):
            conv(f'features.{place}', inputs, outputs, bias=True)
            norm(f'features.{place + 1}', outputs)
        dense('classifier.0', 8, 4)  # 512 * 7 * 7 to 4096 in earnest; not used, whatever its size
    else:
        conv('conv1', channels, 64, stem)
        norm('bn1', 64)
        for stage, count in enumerate(BLOCKS[name], 1):
            for block in range(count):
                key, outputs = f'layer{stage}.{block}', 32 * 2**stage
                inputs = outputs // 2 if stage > 1 and not block else outputs
                conv(f'{key}.conv1', inputs, outputs)
                norm(f'{key}.bn1', outputs)
                conv(f'{key}.conv2', outputs, outputs)
                norm(f'{key}.bn2', outputs)
                if inputs != outputs:
                    conv(f'{key}.downsample.0', inputs, outputs, 1)
                    norm(f'{key}.downsample.1', outputs)
        dense('fc', 512, classes)
    return {key: np.asarray(value, np.int64 if value.ndim == 0 else np.float32) for key, value in tensors.items()}


def saved(path, tensors):
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path)
    return str(path)


# --- the same outputs as PyTorch ---


def torch_resnet(torch, blocks, classes):
    """Modules with torchvision's names, and our 3x3 stem without a pool."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.downsample = None
            if inputs != outputs:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
            inputs = 64
            for stage, count in enumerate(blocks, 1):
                outputs = 32 * 2**stage
                layers = [Block(inputs, outputs, 1 if stage == 1 else 2)]
                layers += [Block(outputs, outputs, 1) for _ in range(count - 1)]
                setattr(self, f'layer{stage}', nn.Sequential(*layers))
                inputs = outputs
            self.fc = nn.Linear(512, classes)

        def forward(self, x):
            x = torch.relu(self.bn1(self.conv1(x)))
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(x.mean((2, 3)))

    return ResNet()


def torch_vgg19(torch):
    """torchvision's vgg19_bn.features; its dense layers in small, since they are not used."""
    nn = torch.nn
    layers, inputs = [], 3
    for outputs in (64, 64, 'M', 128, 128, 'M', *[256] * 4, 'M', *[512] * 4, 'M', *[512] * 4, 'M'):
        if outputs == 'M':
            layers += [nn.MaxPool2d(2)]
        else:
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
    network = nn.Module()
    network.features, network.classifier = nn.Sequential(*layers), nn.Sequential(nn.Linear(8, 4))
    network.forward = lambda x: network.features(x).mean((2, 3))
    return network


@pytest.mark.parametrize('name', ['resnet18', 'resnet34', 'vgg19'])
def test_a_state_dict_written_by_torch_gives_torchs_outputs(tmp_path, name):
    torch = pytest.importorskip('torch', reason='the reference implementation')
    reference = torch_vgg19(torch) if name == 'vgg19' else torch_resnet(torch, BLOCKS[name], 7)
    weights = {key: torch.tensor(value) for key, value in state_dict(name, classes=7).items()}
    reference.load_state_dict(weights)  # strict: the names and shapes above are the ones of the modules
    torch.save(reference.state_dict(), tmp_path / 'a.pth')
    variables, report = load_pretrained(str(tmp_path / 'a.pth'), initial(name), model=name, class_names=SEVEN)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        expected = reference.eval()(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    logits, more = jax.jit(create_model(name, 7).apply)(variables, images)
    found = more['features'] if name == 'vgg19' else logits
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert len(report.used) + len(report.left) == len(jax.tree.leaves(variables))
    said = set() if name == 'vgg19' else {'its outputs are read as a, b, c, d, e, f, g, in this order'}
    assert set(report.changed.values()) == said
    assert set(report.left) == ({'params/head/kernel', 'params/head/bias'} if name == 'vgg19' else set())


# --- what is used, and what is said ---


def test_safetensors_and_pth_give_the_same(tmp_path):
    torch = pytest.importorskip('torch', reason='writes the .pth')
    tensors = state_dict('resnet18')
    torch.save({f'module.{key}': torch.tensor(value) for key, value in tensors.items()}, tmp_path / 'a.pth')
    paths = [saved(tmp_path / 'a.safetensors', tensors), str(tmp_path / 'a.pth')]
    (one, said), (other, also) = (
        load_pretrained(path, initial('resnet18'), model='resnet18', class_names=SEVEN) for path in paths
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert said.used == also.used
    assert said.unused == also.unused


def test_a_foreign_stem_and_head_stay_as_initialised_and_that_is_said(tmp_path):
    path = saved(tmp_path / 'a.safetensors', state_dict('resnet18', stem=7))
    before = initial('resnet18')
    after, report = load_pretrained(path, before, model='resnet18', class_names=SEVEN)
    for name in ('Conv_0', 'BatchNorm_0', 'head'):
        jax.tree.map(np.testing.assert_array_equal, after['params'][name], before['params'][name])
    np.testing.assert_array_equal(after['batch_stats']['BatchNorm_0']['var'], 1.0)
    kernel = after['params']['BasicBlock_0']['Conv_0']['kernel']
    assert np.abs(kernel - before['params']['BasicBlock_0']['Conv_0']['kernel']).max() > 0.1
    total = len(jax.tree.leaves(before))
    assert (len(report.used), len(report.left)) == (total - 7, 7)
    assert report.left['params/Conv_0/kernel'] == 'the stem there is 7x7, here 3x3'
    assert report.left['params/head/kernel'] == 'the head is (512, 1000) there, (512, 7) here'
    assert {'conv1.weight', 'bn1.running_var', 'fc.bias', 'layer1.0.bn1.num_batches_tracked'} < set(report.unused)
    # Every tensor of the file is accounted for: used or not.
    assert len(report.used) + len(report.unused) == len(state_dict('resnet18'))
    assert report.lines()[0] == f'init_from {path}: {total - 7} of {total} arrays set'
    assert any('7x7' in line and line.startswith('  left as initialised: ') for line in report.lines())
    assert any('num_batches_tracked and 17 more (a counter of PyTorch)' in line for line in report.lines())
    json.dumps(report.to_dict())


@pytest.mark.parametrize(('name', 'bias'), [('resnet18', False), ('vgg19', True)])
def test_three_channels_become_one_by_their_sum_and_one_becomes_three(tmp_path, name, bias):
    """Grey images repeated three times and the whole network, against one channel: the first layer gives the same."""
    first = 'features.0' if bias else 'conv1'
    tensors = state_dict(name)
    path = saved(tmp_path / 'three.safetensors', tensors)
    grey, report = load_pretrained(path, initial(name, channels=1), model=name, class_names=SEVEN)
    kernel = grey['params']['Conv_0']['kernel']
    np.testing.assert_allclose(kernel[1, 2, 0, 5], tensors[f'{first}.weight'][5, :, 1, 2].sum(), rtol=1e-5)
    assert report.changed == {'params/Conv_0/kernel': 'summed over 3 input channels'}
    tensors = state_dict(name, channels=1)
    path = saved(tmp_path / 'one.safetensors', tensors)
    colour, report = load_pretrained(path, initial(name), model=name, class_names=SEVEN)
    kernel = colour['params']['Conv_0']['kernel']
    np.testing.assert_array_equal(kernel[:, :, 0], kernel[:, :, 2])
    np.testing.assert_allclose(kernel.sum(2)[0, 1, 9], tensors[f'{first}.weight'][9, 0, 0, 1], rtol=1e-5)
    assert report.changed == {'params/Conv_0/kernel': 'repeated over 3 input channels'}


def test_every_array_of_the_networks_has_a_name():
    for name in COUNTERPARTS:
        shapes = initial(name)
        ours = {'/'.join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)}
        names = torchvision_names(name)
        heads = {'params/head/kernel', 'params/head/bias'} if name == 'vgg19' else set()
        assert set(names) == ours - heads
        assert len(set(names.values())) == len(names)
        assert set(names.values()) <= set(state_dict(name))


# --- what does not fit ---


def without(tensors, name, **more):
    return {key: value for key, value in tensors.items() if key != name} | more


def changed(name, tensors, **arrays):
    return tensors | {name: arrays['to']}


FAULTS = {
    'a name is wrong': (
        lambda t: without(t, 'layer1.0.conv1.weight', **{'layer1.0.konv1.weight': t['layer1.0.conv1.weight']}),
        'lacks layer1.0.conv1.weight; the nearest there is layer1.0.konv1.weight',
    ),
    'one is missing': (lambda t: without(t, 'bn1.bias'), 'lacks bn1.bias'),
    'one too many': (
        lambda t: t | {'layer5.0.conv1.weight': np.zeros(3, 'f4')},
        'also has layer5.0.conv1.weight; the nearest wanted is layer4.0.conv1.weight',
    ),
    'another network': (
        lambda t: state_dict('resnet34'),
        'no state dict of resnet18: its names are those of resnet34',
    ),
    'one more than the larger network has': (
        lambda t: state_dict('resnet34') | {'x': np.zeros(3, 'f4')},
        'no state dict of resnet18: its names are those of resnet34',
    ),
    'no network': (lambda t: {'x': np.zeros(3, 'f4')}, 'lacks conv1.weight'),
    'a shape': (
        lambda t: changed('layer2.0.conv1.weight', t, to=np.zeros((128, 64, 1, 1), 'f4')),
        r'params/BasicBlock_2/Conv_0/kernel has the shape \(1, 1, 64, 128\) there and \(3, 3, 64, 128\) here; is it',
    ),
    'dimensions': (lambda t: changed('layer1.0.bn1.weight', t, to=np.zeros((64, 64), 'f4')), 'has the shape'),
    'four channels': (lambda t: changed('conv1.weight', t, to=np.zeros((64, 4, 3, 3), 'f4')), 'has 4 input channels'),
    'no numbers': (lambda t: changed('bn1.bias', t, to=np.full(64, np.nan, 'f4')), 'not finite'),
    'a stem without dimensions': (lambda t: changed('conv1.weight', t, to=np.zeros(3, 'f4')), 'has the shape'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_file_of_another_network_is_refused_with_the_nearest_name(tmp_path, fault):
    change, message = FAULTS[fault]
    path = saved(tmp_path / 'a.safetensors', change(state_dict('resnet18')))
    with pytest.raises(UserError, match=message) as caught:
        load_pretrained(path, initial('resnet18'), model='resnet18', class_names=SEVEN)
    assert '\n' not in str(caught.value)


def test_networks_that_torchvision_has_not_are_refused(tmp_path):
    path = saved(tmp_path / 'a.safetensors', {'x': np.zeros(3, 'f4')})
    with pytest.raises(UserError, match='torchvision has no shallow_cnn; state dicts fit resnet18, resnet34, vgg19'):
        load_pretrained(path, initial('shallow_cnn'), model='shallow_cnn', class_names=SEVEN)


# --- from a run ---


def test_a_run_hands_on_its_best_checkpoint(make_run):
    workdir = make_run(optimizer__learning_rate=3e-3)
    before = initial('shallow_cnn', side=12, channels=1, classes=3)
    after, report = load_pretrained(workdir, before, model='shallow_cnn', class_names=('anger', 'fear', 'happiness'))
    best = Checkpoints(workdir).best()
    expected = Checkpoints(workdir).restore_model(best, before)
    jax.tree.map(np.testing.assert_array_equal, after, expected)
    assert report.source == f'{workdir} step {best}'
    assert (len(report.used), report.left, report.unused) == (8, {}, {})


def test_other_classes_or_channels_keep_all_but_the_head(make_run):
    workdir = make_run(optimizer__learning_rate=3e-3)
    trained = Checkpoints(workdir).restore_model(
        Checkpoints(workdir).best(), initial('shallow_cnn', side=12, channels=1, classes=3)
    )['params']
    before = initial('shallow_cnn', side=12, channels=3, classes=3)
    after, report = load_pretrained(workdir, before, model='shallow_cnn', class_names=('fear', 'anger', 'happiness'))
    np.testing.assert_array_equal(after['params']['head']['kernel'], before['params']['head']['kernel'])
    np.testing.assert_array_equal(after['params']['Conv_1']['kernel'], trained['Conv_1']['kernel'])
    kernel = after['params']['Conv_0']['kernel']
    np.testing.assert_allclose(kernel.sum(2), trained['Conv_0']['kernel'][:, :, 0], atol=1e-6)
    assert report.left['params/head/bias'] == 'the classes there are anger, fear, happiness'
    assert report.unused == report.left


def test_runs_that_do_not_fit_are_refused(make_run, tmp_path):
    workdir = make_run()
    grey = initial('shallow_cnn', side=16, channels=1, classes=3)
    classes = ('anger', 'fear', 'happiness')
    with pytest.raises(UserError, match='trained shallow_cnn; config.model.name is wider_cnn'):
        load_pretrained(workdir, grey, model='wider_cnn', class_names=classes)
    with pytest.raises(UserError, match='Dense_0/kernel has the shape .* that run saw 12 pixels a side'):
        load_pretrained(workdir, grey, model='shallow_cnn', class_names=classes)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='is no run: it has no config.json'):
        load_pretrained(str(tmp_path / 'empty'), grey, model='shallow_cnn', class_names=classes)
    (tmp_path / 'started').mkdir()
    with open(os.path.join(workdir, 'config.json')) as file:
        (tmp_path / 'started' / 'config.json').write_text(file.read())
    with pytest.raises(UserError, match='has no checkpoint yet'):
        load_pretrained(str(tmp_path / 'started'), grey, model='shallow_cnn', class_names=classes)


def test_a_run_starts_from_another_and_goes_on_without_it(make_run):
    """At a rate of zero its checkpoint is what it started from."""
    first = make_run(optimizer__learning_rate=3e-3)
    changes = {'init_from': first, 'optimizer__learning_rate': 0.0, 'train__ema': 0.9}
    second = make_run('second', **changes)
    target = initial('shallow_cnn', side=12, channels=1, classes=3)
    best = Checkpoints(first).best()
    expected = Checkpoints(first).restore_model(best, target)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), Checkpoints(second).restore_model(8, target), expected
    )
    with open(os.path.join(second, 'config.json')) as file:
        said = json.load(file)['initialised_from']
    assert said['source'] == f'{first} step {best}'
    assert len(said['used']) == 8
    shutil.rmtree(first)
    make_run('second', **changes)
    assert recorded(second) == said


def test_the_report_of_an_earlier_start_is_read_back(tmp_path):
    assert recorded(str(tmp_path)) == {}
    (tmp_path / 'config.json').write_text('{"initialised_from": {"source": "a"}}')
    assert recorded(str(tmp_path)) == {'source': 'a'}
    (tmp_path / 'config.json').write_text('[')
    assert recorded(str(tmp_path)) == {}
