"""What a user waits for before the first result."""


class Import:
    def timeraw_import(self):
        return "import fastsym"

    def timeraw_help(self):
        return """
        import contextlib
        import io
        from fastsym.cli import app
        with contextlib.redirect_stdout(io.StringIO()):
            app(["--help"], standalone_mode=False)
        """
