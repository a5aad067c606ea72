"""Weights of unknown layers that multiply an input: by their shapes, then by their names."""

import pytest

from keras_dsd.algorithm.linearity import Inputs, why_not_linear
from keras_dsd.algorithm.selection import NOT_A_KERNEL, NOT_LINEAR, NOT_LINEAR_BY_SHAPE

ROWS = [(10, 8)]  # 10 positions of 8 features
SQUARE, IDS, IMAGE, VECTOR = [(8, 8)], [(10,)], [(6, 6, 3)], [(8,)]
UNKNOWN = []


@pytest.mark.parametrize(("name", "owner", "shape", "examples", "expected"), [
    # By shape.
    ("w", "Own", (8, 5), ROWS, None),
    ("w", "Own", (8, 8), ROWS, None),
    ("w", "Own", (8, 8), SQUARE, None),
    ("w", "Own", (8, 1), ROWS, None),
    ("w", "Own", (5, 3), ROWS, None),
    ("w", "Own", (80, 5), ROWS, None),
    ("w", "Own", (3, 3, 3, 16), IMAGE, None),
    ("w", "Own", (1, 5), [(10, 1)], None),
    ("mask_emb", "XLNetAttentionMaskLayer", (1, 1, 8), IDS, NOT_LINEAR_BY_SHAPE),
    ("w", "Own", (1, 8), UNKNOWN, NOT_LINEAR_BY_SHAPE),
    ("r_k", "RWKV7TimeMix", (2, 4), ROWS, NOT_LINEAR_BY_SHAPE),
    ("w", "Own", (10, 8), ROWS, NOT_LINEAR_BY_SHAPE),
    ("w", "Own", (6, 6, 3), IMAGE, NOT_LINEAR_BY_SHAPE),
    ("w", "Own", (5, 3), UNKNOWN, None),
    # By shape in spite of the name.
    ("scale_w", "Own", (8, 5), ROWS, None),
    ("pos_w", "Own", (8, 5), ROWS, None),
    ("query", "Own", (8, 2, 4), ROWS, None),
    ("query", "Own", (8, 5), ROWS, None),
    ("tokens", "Own", (8, 5), ROWS, None),
    ("wq", "PositionAttention", (8, 5), ROWS, None),
    ("wq", "PositionAttention", (8, 2, 4), ROWS, None),
    ("wq", "PositionAttention", (8, 8), VECTOR, None),
    ("encoding", "Own", (8, 5), ROWS, None),
    # By the name where a shape may be either.
    ("bias", "Own", (2, 4), ROWS, NOT_A_KERNEL),
    ("wide_bias", "Own", (2, 5), ROWS, NOT_A_KERNEL),
    ("scale", "Own", (8, 8), SQUARE, NOT_A_KERNEL),
    ("bias_kernel", "Own", (5, 3), UNKNOWN, None),
    ("rel_embedding", "RelativeEmbedding", (16, 8), ROWS, NOT_LINEAR),
    ("rel_embedding", "RelativeEmbedding", (8, 8), ROWS, NOT_LINEAR),
    ("segment_encoding", "XLNetEncoder", (2, 2, 4), ROWS, NOT_LINEAR),
    ("pos_emb", "Own", (8, 8), SQUARE, NOT_LINEAR),
    ("pos_emb", "Own", (10, 6), IDS, NOT_LINEAR),
    ("pos_emb", "Own", (10, 6), UNKNOWN, NOT_LINEAR),
    ("embeddings", "PositionEmbedding", (8, 8), SQUARE, NOT_LINEAR),
    ("embeddings", "PositionEmbedding", (20, 8), ROWS, NOT_LINEAR),
    ("embeddings", "PositionEmbedding", (8, 8), [(None, 8)], NOT_LINEAR),
    ("queries", "Own", (12, 8), ROWS, NOT_LINEAR),
    ("query", "Own", (12, 8), ROWS, NOT_LINEAR),
    ("query_tokens", "Own", (8, 8), ROWS, NOT_LINEAR),
    ("latents", "Own", (12, 6), UNKNOWN, NOT_LINEAR),
    ("query_kernel", "Own", (12, 8), ROWS, None),
    # The look-up of an id is linear, as Embedding is.
    ("embeddings", "Words", (1000, 6), IDS, None),
    ("embeddings", "Words", (1000, 6), UNKNOWN, None),
])  # fmt: skip
def test_a_weight(name, owner, shape, examples, expected):
    assert why_not_linear(name, [owner], shape, Inputs.of(examples, ())) == expected


def test_sizes_of_vectors_tell_the_features_where_inputs_are_not_known():
    assert why_not_linear("r_k", ["Own"], (2, 4), Inputs.of([], [8])) == NOT_LINEAR_BY_SHAPE
    assert why_not_linear("r_k", ["Own"], (2, 4), Inputs.of(ROWS, [3])) == NOT_LINEAR_BY_SHAPE
    assert why_not_linear("r_k", ["Own"], (2, 4), Inputs.of([], [3])) is None


def test_sizes_that_vary_do_not_count():
    assert why_not_linear("w", ["Own"], (8, 5), Inputs.of([(None, 8), (None,)], [])) is None
    assert Inputs.of([(None,)], [7]).features == frozenset()
