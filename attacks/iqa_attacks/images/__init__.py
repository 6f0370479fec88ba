"""What is done to images and between them: 8-bit levels, JPEG, similarity."""
