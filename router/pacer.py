"""INTERIM by the lead so that the package imports; helper D replaces this file whole."""
class Pacer:
    price = 0.0
    usd_per_prompt = 0.0
    @classmethod
    def of(cls, settings): return cls()
    def charge(self, usd): ...
    def state(self): return {}
    def restore(self, state): ...
    def merge(self, state): ...
