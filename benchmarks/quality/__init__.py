"""Compare the quality of predictions, on public tables, with scikit-learn, LightGBM, CatBoost and RealMLP."""
