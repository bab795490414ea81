"""What a user waits for before the first result."""


class Import:
    def timeraw_import(self):
        return "import fastsym"

    def timeraw_help(self):
        return """
        import sys
        from fastsym.cli import app
        sys.argv = ["fastsym", "--help"]
        try:
            app()
        except SystemExit:
            pass
        """
