"""Layers with weights of the names, shapes and uses that those of KerasHub's models have."""

import keras

layers, ops = keras.layers, keras.ops


class RelativeEmbedding(layers.Layer):
    """A row for each relative position, whatever the input: as in DeBERTaV3."""

    def __init__(self, hidden_dim, bucket_size, **kwargs):
        super().__init__(**kwargs)
        self.rel_embeddings = self.add_weight(
            shape=(2 * bucket_size, hidden_dim), name="rel_embedding"
        )
        self.norm = layers.LayerNormalization()

    def call(self, x):
        return x + ops.mean(self.norm(self.rel_embeddings), axis=0)


class Encoder(layers.Layer):
    """Two encodings of segments, and biases of attention, by heads: as in XLNet."""

    def __init__(self, num_heads, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, shape):
        heads = (self.num_heads, shape[-1] // self.num_heads)
        self.feedforward = layers.Dense(shape[-1], name="feedforward")
        self.feedforward.build(shape)
        self.attention_bias = self.add_weight(shape=heads, name="content_attention_bias")
        self.segment_encoding = self.add_weight(shape=(2, *heads), name="segment_encoding")

    def call(self, x):
        heads = ops.reshape(x, (-1, x.shape[1], *self.attention_bias.shape))
        scores = ops.einsum("bind,snd->bis", heads + self.attention_bias, self.segment_encoding)
        return self.feedforward(x) + scores[..., :1]


class AttentionMask(layers.Layer):
    """One vector that stands for what is masked: as in XLNet."""

    def build(self, shape):
        self.mask_emb = self.add_weight(shape=(1, 1, shape[-1]), name="mask_emb")

    def call(self, x):
        return ops.where(x > 0, x, ops.convert_to_tensor(self.mask_emb))


class TimeMix(layers.Layer):
    """Matrices under short names, and a factor for each feature, by heads: as in RWKV7."""

    def __init__(self, num_heads, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, shape):
        size, heads = shape[-1], (self.num_heads, shape[-1] // self.num_heads)
        self.w1 = self.add_weight(shape=(size, 3), name="w1")
        self.w2 = self.add_weight(shape=(3, size), name="w2")
        self.k_k = self.add_weight(shape=(size,), name="k_k")
        self.r_k = self.add_weight(shape=heads, name="r_k")

    def call(self, x):
        heads = ops.reshape(x * self.k_k, (-1, x.shape[1], *self.r_k.shape))
        mixed = ops.reshape(heads * self.r_k, ops.shape(x))
        return mixed + ops.matmul(ops.tanh(ops.matmul(x, self.w1)), self.w2)


class Words(layers.Layer):
    """Looks ids up in a custom table."""

    def build(self, shape):
        self.table = self.add_weight(shape=(17, 6), name="embeddings")

    def call(self, ids):
        return ops.take(self.table, ids, axis=0)


class Attention(layers.Layer):
    """Attention of which the kernels are named for what they make, in a class named for use."""

    def build(self, shape):
        heads = (shape[-1], 2, shape[-1] // 2)
        self.query = self.add_weight(shape=heads, name="query")
        self.key = self.add_weight(shape=heads, name="key")
        self.position = self.add_weight(shape=(shape[-1], 5), name="position_map")

    def call(self, x):
        query, key = (ops.einsum("btc,cnd->btnd", x, each) for each in (self.query, self.key))
        scores = ops.einsum("btnd,bsnd->bts", query, key)
        return ops.matmul(ops.matmul(scores, x), self.position)
