"""Cases of AnchorEmbeddingExtractor."""

from random import Random

from cases import Case, row


@row(
    "AnchorEmbeddingExtractor",
    "embedding_extractor_param { num_anchors: 4 label_src_pos: 8 num_valid_actions: 5 }",
    gradient=(1, 2),
)
def anchor_embedding(rng: Random, name: str) -> Case:
    text = f"num_anchors: 2 label_src_pos: {rng.randint(0, 10)} "
    text += rng.choice(["", "num_valid_actions: 1 "])
    third = rng.choice(["", "output_proposals: true", "output_instance_weights: true"])
    tops = 'top: "a" top: "b"' + (' top: "c"' if third else "")
    grid = [2, rng.randint(1, 3), rng.randint(2, 3), rng.randint(2, 3)]
    bottoms = [[1, 1, rng.randint(1, 4), 11], grid, grid]
    text = f"embedding_extractor_param {{ {text} {third} }} {tops}"
    return Case(text, bottoms, ("below 2", "real", "real"))
