"""The report: one page that shows what is in a dataset."""
