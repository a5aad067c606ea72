"""The sequences of benchmarks/studies: the parts of a seed, and the loss where lengths differ."""

import zipfile

import keras
import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers import benchmarks

pytestmark = pytest.mark.only_on("jax")


@pytest.fixture(scope="module")
def sequences():
    with benchmarks.imported(benchmarks.STUDIES, "sequences") as found:
        yield found["sequences"]


def arrays(part):
    """Returns the arrays of a part, in one list."""
    x, y = part
    return [*(x.values() if isinstance(x, dict) else [x]), y]


def assert_repeats(read, path):
    """Asserts that a split follows from its seed, and that epochs differ, as seeds do."""
    one, again, other = read(path, 3), read(path, 3), read(path, 4)
    for part in (lambda split: split.epoch(5), lambda split: split.validation):
        assert all(map(np.array_equal, arrays(part(one)), arrays(part(again))))
    assert not all(map(np.array_equal, arrays(one.epoch(5)), arrays(other.epoch(5))))
    assert not all(map(np.array_equal, arrays(one.epoch(5)), arrays(one.epoch(6))))


def test_windows_of_letters_are_of_one_part_each_and_start_elsewhere_in_every_epoch(
    sequences, tmp_path, monkeypatch
):
    monkeypatch.setattr(sequences, "TRAINED_LETTERS", 1500)
    # Each letter is its index, so that a window shows where it is from.
    monkeypatch.setattr(sequences, "_letters", lambda path: np.arange(20_000))
    split = sequences.letter_windows(tmp_path, 0)
    parts = [split.epoch(0), split.validation, split.test]
    for x, y in parts:
        assert x.shape == y.shape == (len(x), sequences.WINDOW)
        np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    (x, y), validation, test = parts
    assert len(x) == 32 and np.all(np.diff(x) == 1) and np.all(y[:, -1] == x[:, -1] + 1)
    assert y.max() < 18_000 <= min(validation[0].min(), test[0].min())
    assert not set(validation[0].flat) & set(test[0].flat)
    assert len({int(split.epoch(number)[0].min() % sequences.WINDOW) for number in range(8)}) > 1
    assert_repeats(sequences.letter_windows, tmp_path)


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.fixture
def dictionary(tmp_path):
    """A file of 26 * 26 words, of which each starts with its own two letters."""
    lines = ["A. 1 EY1", "ABERDEENSHIRES 1 AE1 B", "DON'T 1 D OW1 N T", "A 1 AH0"]
    for one in LETTERS:
        for other in LETTERS:
            lines += [f"{one}{other} 1 T{one} AH0 T{other}", f"{one}{other} 2 T{one} AH1 T{other}"]
            lines += [f"{one}{other} 3 T{one} EY1"]
    with zipfile.ZipFile(tmp_path / "cmudict.zip", "w") as file:
        file.writestr("cmudict/cmudict", "\n".join(lines))
    return tmp_path / "cmudict.zip"


def test_no_word_is_in_two_parts_and_has_its_pronunciations_without_stress(
    sequences, dictionary, monkeypatch
):
    monkeypatch.setattr(sequences, "NUM_WORDS", (400, 100, 100))
    split = sequences.pronunciations(dictionary, 0)
    words = []
    for (x, y), pronunciations in (
        (split.epoch(0), 2 * 400 // 128 * 128),
        (split.validation, 2 * 100),
        (split.test, 2 * 100),
    ):
        assert x["word"].shape == (pronunciations, 12) and y.shape == (pronunciations, 13)
        assert np.all(x["word"][:, :2] > 0) and not np.any(x["word"][:, 2:])
        np.testing.assert_array_equal(x["before"], np.pad(y, ((0, 0), (1, 0)))[:, :-1])
        lengths = np.sum(y != sequences.PADDING, axis=1)
        assert set(lengths) == {3, 4}, "those that differ in stress alone are one"
        assert np.all(y[np.arange(len(y)), lengths - 1] == sequences.END)
        words.append(set(map(tuple, x["word"])))
    assert not words[0] & words[1] and not words[0] & words[2] and not words[1] & words[2]
    assert len(words[1]) == len(words[2]) == 100
    assert_repeats(sequences.pronunciations, dictionary)


def test_no_scene_is_in_two_parts_and_each_drawing_has_its_five_captions(sequences, monkeypatch):
    monkeypatch.setattr(sequences, "NUM_SCENES", (70, 9, 8))
    monkeypatch.setattr(sequences, "DRAWINGS", 2)
    monkeypatch.setattr(sequences, "captions", sequences.captions.__wrapped__)
    read = []
    monkeypatch.setattr(
        sequences, "_words", lambda scene, random, of=sequences._words: (
            read.append(scene) or of(scene, random)
        ),
    )  # fmt: skip
    split = sequences.captions(None, 0)
    train, held_out = read[:140], read[140:]
    assert train[::2] == train[1::2] and len({*train}) == 70
    assert len({*train, *held_out}) == 70 + 9 + 8
    x, y = split.epoch(0)
    assert x["image"].shape == (128, sequences.NUM_FEATURES)
    assert y.shape == x["before"].shape == (128, sequences.NUM_POSITIONS)
    assert [len(part[1]) for part in (split.validation, split.test)] == [9 * 5, 8 * 5]
    names = {index: word for word, index in sequences._vocabulary().items()}
    assert max(names) == sequences.NUM_CAPTION_WORDS - 1
    x, y = split.validation
    for number, scene in enumerate(held_out[:9]):
        rows = slice(5 * number, 5 * number + 5)
        assert len({row.tobytes() for row in x["image"][rows]}) == 1
        for row in y[rows]:
            sentence = [names[index] for index in row[row > sequences.END]]
            assert scene[0][0] in sentence and scene[1][0] in sentence, "both colours"
            assert np.count_nonzero(row) == len(sentence) + 1
    assert_repeats(sequences.captions, None)


def test_the_loss_is_the_mean_over_tokens_and_padding_has_no_part(sequences):
    random = np.random.default_rng(0)
    tokens = np.array([[3, 2, 1, 0, 0], [1, 0, 0, 0, 0]], "int32")
    logits = random.normal(size=(2, 5, 4)).astype("float32")
    chances = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    found = [(0, 0, 3), (0, 1, 2), (0, 2, 1), (1, 0, 1)]
    expected = -np.mean([np.log(chances[each]) for each in found])
    hits = np.mean([logits[row, place].argmax() == token for row, place, token in found])
    assert float(sequences._token_loss(tokens, logits)) == pytest.approx(expected, rel=1e-5)
    for function, value in ((sequences._token_nll, expected), (sequences._token_hits, hits)):
        metric = sequences._OfTokens(function, "metric")
        for row in (slice(0, 1), slice(1, 2)):  # batches of unequal numbers of tokens
            metric.update_state(tokens[row], logits[row])
        assert float(metric.result()) == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "prunable"),
    [("letters-lstm", 2), ("letters-transformer", 12), ("pronunciation", 6), ("captions", 4)],
)
def test_a_network_takes_several_batches_in_a_step_and_prunes_its_kernels(
    sequences, name, prunable
):
    import protocol
    import tasks

    class Zeros(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            for weight in dsd.weights(self.model):
                zeros = np.count_nonzero(weight.numpy() == 0)
                assert zeros == (round(0.5 * weight.numpy().size) if self.epoch == 0 else 0), (
                    weight.path
                )

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    task = next(each for each in tasks.TASKS if each.name == name)
    lr, l2 = task.bases[0]
    model = dsd.apply(task.build(protocol.Setting(l2, lr)), 0.5, exclude=task.exclude)
    assert len(dsd.weights(model)) == prunable
    random, rows = np.random.default_rng(0), 2 * task.batch_size
    x = {
        tensor.name: random.integers(0, 2, (rows, *tensor.shape[1:])).astype(tensor.dtype)
        for tensor in model.inputs
    }
    (output,) = model.outputs
    y = random.integers(0, 2, (rows, *output.shape[1:-1])).astype("int32")
    x = x if len(x) > 1 else x.popitem()[1]
    history = model.fit(
        x, y, batch_size=rows, epochs=2, verbose=0,
        callbacks=[dsd.DSDSchedule(phases=[dsd.SparsePhase(1), dsd.DensePhase(1)]), Zeros()],
    )  # fmt: skip
    assert np.all(np.isfinite(history.history["nll"])) and int(model.optimizer.iterations) == 4
