# docker build -t razor-studio . && docker run -p 7860:7860 razor-studio
# With a password: export RAZOR_AUTH=USER:PASS, and docker run -e RAZOR_AUTH -p 7860:7860 razor-studio
FROM python:3.11-slim

# /kept is for downloaded models and may be a volume; rounds and uploads live under /tmp and go with the container.
RUN useradd --create-home --uid 1000 studio && mkdir /kept && chown studio /kept
WORKDIR /app

COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

COPY --chown=studio . .
USER studio

ENV HF_HOME=/kept \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    PYTHONUNBUFFERED=1
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import os, urllib.request as web; web.urlopen(f\"http://127.0.0.1:{os.environ['GRADIO_SERVER_PORT']}/\", timeout=4).close()"]

CMD ["python", "app.py"]
