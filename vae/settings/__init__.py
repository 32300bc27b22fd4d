"""The configuration: what it may say, and how it is composed, checked and explained. Imports no torch."""
