"""A route of FastAPI that does nothing, with the server that ours has: what is left of a request when there is no model."""

import sys

import uvicorn
from fastapi import FastAPI, Response

app = FastAPI()


@app.post("/predict")
async def predict() -> Response:
    return Response(b"{}", media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False)
