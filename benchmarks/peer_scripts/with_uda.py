"""This project's side: scikit-learn's manners, on arrays."""

import uda


def adapt(task):
    adapter = uda.Adapter(
        task.method, task.network, trained=True, random_state=task.seed, precision=task.precision,
        settings={
            "training": {"steps": task.steps, "batch": task.batch, "target_batch": task.batch, "evaluate_every": task.steps},
            "augment": {},
            "classifier.refine_steps": 0,
        },
    ).fit(task.source, task.labels, task.target)  # fmt: skip
    return adapter.predict


if __name__ == "__main__":
    from arm import main

    main(adapt)
