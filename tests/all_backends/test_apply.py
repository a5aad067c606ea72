"""Arguments of apply, strip, weights and report; a refusal changes nothing."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import IN, keras, name_of

BAD_APPLY = {
    "sparsity above": ({"sparsity": 1.0}, ValueError, r"sparsity=1\.0.*0\.3 for 30 %"),
    "sparsity below": ({"sparsity": -0.1}, ValueError, r"sparsity=-0\.1"),
    "sparsity nan": ({"sparsity": float("nan")}, ValueError, "sparsity=nan"),
    "sparsity inf": ({"sparsity": float("inf")}, ValueError, "sparsity=inf"),
    "sparsity bool": ({"sparsity": True}, TypeError, "sparsity=True of type bool"),
    "sparsity text": ({"sparsity": "0.3"}, TypeError, "sparsity='0.3' of type str"),
    "sparsity None": ({"sparsity": None}, TypeError, "sparsity=None"),
    "sparsity list": ({"sparsity": [0.3]}, TypeError, r"sparsity=\[0\.3\] of type list"),
    "dict value": ({"sparsity": {"dense": 2}}, ValueError, r"sparsity\['dense'\]=2"),
    "dict key": ({"sparsity": {3: 0.1}}, TypeError, "pattern=3 of type int"),
    "bad expression": ({"sparsity": {"(": 0.1}}, ValueError, r"pattern='\(' .*re\.escape"),
    "empty dict": ({"sparsity": {}}, ValueError, "select none of"),
    "zero": ({"sparsity": 0}, ValueError, "select none of"),
    "unmatched": ({"sparsity": {"dense": 0.3, "conv": 0.5}}, ValueError,
                  r"pattern='conv', which matches none of \['.*dense/kernel', .*dense_1/kernel'"),
    "callable text": ({"sparsity": lambda w: "x"}, TypeError, r"sparsity\(.*dense/kernel\)='x'"),
    "callable above": ({"sparsity": lambda w: 1.5}, ValueError, r"sparsity\(.*dense/kernel\)=1\.5"),
    "exclude text": ({"exclude": "dense"}, TypeError, r"exclude='dense' of type str.*\['dense_1"),
    "exclude number": ({"exclude": [1]}, TypeError, "pattern=1 of type int"),
    "exclude unmatched": ({"exclude": ["conv"]}, ValueError, "exclude with pattern='conv'"),
    "exclude all": ({"exclude": ["."]}, ValueError, r"exclude=\('\.',\), which select none"),
    "pattern": ({"pattern": "2:4"}, TypeError, r"Block\(height, width\) or NM.*pattern='2:4'"),
    "scope": ({"scope": "world"}, ValueError, "scope='world'.*'layer'|'layer'.*scope='world'"),
}  # fmt: skip


def state(model):
    names = [name_of(w) for w in model.weights]
    return model.get_config(), names, [w.tolist() for w in model.get_weights()], model.optimizer


@pytest.mark.parametrize("case", BAD_APPLY)
def test_apply_refuses_and_changes_nothing(case, compiled, mlp):
    arguments, error, message = BAD_APPLY[case]
    model = compiled(mlp())
    before = state(model)
    with pytest.raises(error, match=message):
        dsd.apply(model, **arguments)
    assert state(model) == before
    assert all("get_prunable_weights" not in vars(layer) for layer in model.layers)


@pytest.mark.parametrize("name", ["apply", "strip", "weights", "report"])
@pytest.mark.parametrize("thing", [None, 3, "model", [], object(), keras.optimizers.SGD()], ids=str)
def test_what_is_not_a_model_is_refused(name, thing):
    with pytest.raises(TypeError, match="Expected `model` to be a .*model or layer"):
        getattr(dsd, name)(thing)


@pytest.mark.parametrize("name", ["strip", "weights", "report"])
def test_a_model_that_was_not_wrapped_is_refused(name, mlp):
    with pytest.raises(ValueError, match=r"through apply\(\).*model='sequential'"):
        getattr(dsd, name)(mlp())


def test_a_model_with_nothing_to_prune(mlp):
    layers = keras.layers
    model = keras.Sequential([layers.Input((4,)), layers.BatchNormalization()])
    with pytest.raises(ValueError, match=r"weights to prune.*Select at least one"):
        dsd.apply(model)
    with pytest.raises(ValueError, match="weights to prune"):
        dsd.apply(layers.Dropout(0.5))


def test_apply_twice(mlp):
    model = dsd.apply(mlp())
    with pytest.raises(ValueError, match=r"Call strip\(\) first"):
        dsd.apply(model)
    assert len(dsd.weights(dsd.apply(dsd.strip(model)))) == 2


def test_sparsity_by_pattern_first_match_wins(mlp):
    model = dsd.apply(mlp(), {"dense_1": 0.5, "dense": 0.25})
    assert {w.path: w.sparsity for w in dsd.weights(model)} == {
        IN + "dense/kernel": 0.25, IN + "dense_1/kernel": 0.5,
    }  # fmt: skip


def test_sparsity_by_callable_sees_the_weight(mlp):
    seen = []

    def sparsity(weight):
        seen.append((weight.path, weight.shape, weight.numpy().shape))
        return 0.5 if weight.path == IN + "dense/kernel" else 0

    model = dsd.apply(mlp(), sparsity)
    assert [(w.path, w.sparsity) for w in dsd.weights(model)] == [(IN + "dense/kernel", 0.5)]
    assert (IN + "dense_1/kernel", (16, 10), (16, 10)) in seen


def test_exclude_and_no_match_are_reported(mlp):
    found = dsd.report(dsd.apply(mlp(), 0.3, exclude=["dense_1"]))
    assert {s.path: s.reason for s in found.skipped}[IN + "dense_1/kernel"] == "excluded"
    keras.backend.clear_session()
    found = dsd.report(dsd.apply(mlp(), {"dense/": 0.3}))
    reasons = {s.path: s.reason for s in found.skipped}
    assert reasons[IN + "dense_1/kernel"] == "no pattern of `sparsity` matches"


def test_what_apply_returns_shares_weights_and_predicts_the_same(digits, mlp):
    plain = mlp()
    outputs = [layer.output for layer in plain.layers]
    model = dsd.apply(plain)
    assert np.array_equal(model.predict(digits[0]), plain.predict(digits[0]))
    assert all(
        a is b for a, b in zip(model.trainable_weights, plain.trainable_weights, strict=True)
    )
    assert all(a is layer.output for a, layer in zip(outputs, plain.layers, strict=True))
    assert model.name == plain.name


def test_a_compiled_model_stays_compiled(digits, compiled, mlp):
    plain = compiled(mlp(), metrics=["accuracy"])
    plain.fit(*digits, verbose=0)
    model = dsd.apply(plain)
    assert model.evaluate(*digits, verbose=0) == plain.evaluate(*digits, verbose=0)
    assert model.optimizer is plain.optimizer
    assert getattr(dsd.apply(mlp()), "optimizer", None) is None


def test_report_as_data_and_as_text(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.5))
    with pytest.warns(UserWarning, match="pruned weights"):
        model.fit(*digits, verbose=0, callbacks=[dsd.DSDSchedule(phases=[dsd.SparsePhase(1)])])
    found = dsd.report(model)
    data = found.to_dict()
    weight = dsd.weights(model)[0]
    threshold = float(np.abs(weight.numpy()[weight.mask]).min())
    assert threshold > 0 and data["weights"][0] == {
        "path": IN + "dense/kernel", "shape": [64, 16], "size": 1024, "share": 1024 / 1210,
        "target": 0.5, "asked": 0.5, "measured": 0.5, "threshold": threshold, "masked": True,
        "uncovered": 0,
    }  # fmt: skip
    assert data["size"] == 1184 and data["sparsity"] == found.sparsity == 0.5
    assert data["total_size"] == 1210
    lines = found.render().splitlines()
    expected = f"{IN}dense/kernel 64 x 16 1,024 84.63% 50.00% 50.00% {threshold:.4g} active"
    assert lines[8].split() == expected.split()
    left = " ".join(lines[10:])
    assert left.startswith(f"left dense: {IN}dense/bias, {IN}dense_1/bias (not a kernel")
    assert str(found) == found.render()


def test_weights_are_read_and_set_by_value(mlp):
    weight = dsd.weights(dsd.apply(mlp()))[0]
    values = weight.numpy()
    values[:] = 1
    assert not (weight.numpy() == 1).all()
    weight.assign(values)
    assert (weight.numpy() == 1).all()
    assert repr(weight) == f"<Weight {IN}dense/kernel shape=(64, 16) sparsity=0.3>"


def test_a_completely_frozen_model_is_reported(mlp):
    model = mlp()
    model.trainable = False
    with pytest.raises(ValueError, match=r"select none of .*not trainable: to prune it anyway"):
        dsd.apply(model, 0.3)


@pytest.mark.parametrize("sparsity", ["0.3", [0.3], None])
def test_the_error_for_a_sparsity_of_another_type_lists_the_types(sparsity, mlp):
    with pytest.raises(TypeError, match=r"a number in \[0, 1\), a dict.*or a function"):
        dsd.apply(mlp(), sparsity)
