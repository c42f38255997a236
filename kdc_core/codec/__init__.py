"""What the paper proposes, whole: people to Fields (encode) and Fields to people (decode).

In the order of the data: `skeleton`, `grid`, `sample` -> `encode` -> `fields` -> `peaks` ->
`grouping` -> `centroids` -> `decode` -> `results`; `codec` holds them together.
"""
