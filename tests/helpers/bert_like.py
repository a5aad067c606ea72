"""A model as third parties subclass them: all layers lie in layers of unknown types."""

import tensorflow as tf
import tf_keras

layers = tf_keras.layers


class SelfAttention(layers.Layer):
    """Attention with one head."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.query, self.key, self.value = (
            layers.Dense(size, name=name) for name in ("query", "key", "value")
        )

    def call(self, x, mask):
        scores = tf.matmul(self.query(x), self.key(x), transpose_b=True)
        return tf.matmul(tf.nn.softmax(scores - 1e9 * (1 - mask[:, None])), self.value(x))


class Intermediate(layers.Layer):
    """The wide layer of a block."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(size, "gelu", name="dense")

    def call(self, x):
        return self.dense(x)


class Output(layers.Layer):
    """Back to the size of a block's input."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(size, name="dense")
        self.norm = layers.LayerNormalization(name="norm")

    def call(self, x, residual):
        return self.norm(self.dense(x) + residual)


class Block(layers.Layer):
    """One of the encoder's."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.attention = SelfAttention(size, name="attention")
        self.intermediate = Intermediate(2 * size, name="intermediate")
        self.bert_output = Output(size, name="output")

    def call(self, x, mask):
        x = x + self.attention(x, mask)
        return self.bert_output(self.intermediate(x), x)


class Encoder(layers.Layer):
    """All blocks, in a list."""

    def __init__(self, size, num_blocks, **kwargs):
        super().__init__(**kwargs)
        self.layer = [Block(size, name=f"layer_._{index}") for index in range(num_blocks)]

    def call(self, x, mask):
        for block in self.layer:
            x = block(x, mask)
        return x


class MainLayer(layers.Layer):
    """The whole of it, as one layer."""

    def __init__(self, size, num_blocks, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.encoder = Encoder(size, num_blocks, name="encoder")

    def build(self, shape):
        self.words = self.add_weight(shape=(11, self.size), name="word_embeddings")
        super().build(shape)

    def call(self, inputs):
        x = tf.gather(self.words, inputs["input_ids"])
        return self.encoder(x, tf.cast(inputs["attention_mask"], x.dtype))


class Bert(tf_keras.Model):
    """A classifier whose constructor takes settings, and whose inputs are a dict."""

    def __init__(self, size=8, num_blocks=2, **kwargs):
        super().__init__(**kwargs)
        self.bert = MainLayer(size, num_blocks, name="bert")
        self.classifier = layers.Dense(3, name="classifier")

    def call(self, inputs):
        return self.classifier(tf.reduce_mean(self.bert(inputs), axis=1))
