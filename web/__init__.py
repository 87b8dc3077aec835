"""The parts of ``app.py`` that are no routes: access, forms, errors, the objects of the APIs."""
