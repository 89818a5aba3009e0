"""The app: a page in a browser that shows what a pipeline predicts and creates."""
