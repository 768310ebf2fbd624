r"""The frameworks that our curves are named after: their rates for the golden tables, and a test with random parameters.

    golden.py         writes the tables in `../golden`, with the calls in `golden_cases.py`; a test reads them
    differential.py   compares random parameters, with the cases in `cases`
    examples.py       runs the examples of docs/other-frameworks.md
    libraries.py      the frameworks
    tutorials.py      the classes of MXNet's tutorials
    comparisons.py    random parameters, and the comparison of a schedule with our curve
    curves.py         curves and random parameters that several libraries have in common

They run by hand, in an environment of their own with Python 3.11:

    pip install torch==2.13.0 optax==0.2.8 jax==0.10.2 keras==3.15.1 timm==1.0.31 transformers==5.24.0 paddlepaddle==3.3.1
    pip download --no-deps --dest SOURCES gluoncv==0.10.5.post0 megatron_core==0.16.1 fastai==2.8.12
    pip download --no-deps --dest SOURCES pytorch_warmup==0.2.0 speechbrain==1.1.2
    pip download --no-deps --no-binary :all: --no-build-isolation --dest SOURCES fairseq==0.12.2 deepspeed==0.19.8
    (cd SOURCES; for file in *.whl; do python -m zipfile -e $file .; done; for file in *.tar.gz; do tar -xf $file; done)

The packages in SOURCES are not installed, since they need MXNet, CUDA or much else. One file of each is read, with stand-ins
for what it imports. All frameworks compute in double precision.
"""
