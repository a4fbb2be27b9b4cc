"""The routes: what each address answers. Every module makes one blueprint from what it needs."""
