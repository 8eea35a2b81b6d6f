from phaselab.study import digest_of


def key(training, data, stamps):  # stub
    return digest_of(training.model_dump(include={"text", "mix", "seed", "vocabulary"}))
