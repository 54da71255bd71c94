rule ran:
    output:
        "ran.txt"
    run:
        with open(output[0], "w") as file:
            print(config["word"], file=file)
