"""Writes captions with a trained model, and scores them by BLEU."""

from collections.abc import Sequence

import numpy as np
import sacrebleu

from recipes.beam_search import search
from recipes.caption_data import Sentence
from recipes.caption_models import Generator


def write(
    generator: Generator,
    features: np.ndarray,
    vocabulary: Sequence[str],
    *,
    beam_size: int,
    max_words: int,
    batch_size: int = 50,
) -> list[Sentence]:
    """Returns a sentence for each image, the best one that beam search finds.

    Args:
        generator: Has the weights of the model.
        features: Those of the images, (images, 4096).
        vocabulary: Words by id.
        beam_size: Number of sentences in the beam of each image.
        max_words: Maximum number of words of a sentence.
        batch_size: Number of images in a batch.
    """
    sentences: list[Sentence] = []
    for start in range(0, len(features), batch_size):
        # Every batch is full, so that nothing is compiled for the last one alone.
        rows = np.arange(start, start + batch_size) % len(features)
        states = generator.start(features[rows])
        found, _ = search(generator.step, states, beam_size=beam_size, max_words=max_words)
        sentences += [[vocabulary[index] for index in words] for words in found]
    return sentences[: len(features)]


def bleu(written: Sequence[Sentence], references: Sequence[Sequence[Sentence]]) -> dict[str, float]:
    """Returns BLEU-4 to BLEU-1 of captions, in percent.

    It is the BLEU of a corpus with several references, as multi-bleu.perl computes it, which
    NeuralTalk scores with: words are what stands between blanks, nothing is smoothed, and the
    reference nearest in length counts for brevity. BLEU-n is the geometric mean up to n words.

    Args:
        written: A sentence for each image.
        references: The sentences that people wrote about each image.
    """
    most = max(map(len, references))
    streams = [
        [" ".join(each[n]) if n < len(each) else None for each in references] for n in range(most)
    ]
    lines = [" ".join(words) for words in written]
    scores = {}
    for order in (4, 3, 2, 1):
        metric = sacrebleu.BLEU(
            lowercase=True, force=True, tokenize="none", smooth_method="none", max_ngram_order=order
        )
        scores[f"BLEU-{order}"] = metric.corpus_score(lines, streams).score
    return scores
