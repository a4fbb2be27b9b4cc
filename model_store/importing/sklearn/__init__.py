"""scikit-learn: pipelines, and the features of their transformers."""
