import signal

# Nothing has started yet that would have to be stopped. As an exception, Ctrl-C may come in a callback or in an
# import that passes over exceptions, and be lost there.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from app.cli import main  # noqa: E402

main()
