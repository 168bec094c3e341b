"""What a reference says: pictures and words as embeddings, cleaned of content. Knows no UNet."""
