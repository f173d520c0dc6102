"""What only an evaluation knows: questions with their answers, which passages are relevant, and a reranker's training."""
