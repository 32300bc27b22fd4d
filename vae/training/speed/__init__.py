"""What is only for speed: without it everything takes longer and nothing else changes."""
