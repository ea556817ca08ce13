//! Literal-only deflate: Huffman codes without matches, in six sub-streams that decode interleaved.
