"""Network parts: tensors in, tensors out. They know neither noise levels nor files."""
