"""Table files as other programs write them, as text cells: CSV and its relatives, JSON lines, Parquet, Arrow, Excel."""
