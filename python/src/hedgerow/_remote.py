"""The part of the package ``hedgerow`` that runs calls on workers, under the name ``hedgerow_calls``."""
