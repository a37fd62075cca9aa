"""Threads that allocate and free: small objects, large buffers, and mappings of their own."""
import hashlib
import mmap
import threading

THREADS, ROUNDS = 8, 60
answers = [None] * THREADS


def work(number):
    digest = hashlib.sha256()
    for i in range(ROUNDS):
        small = [str(number * i + j) for j in range(500)]
        large = bytearray((i * 37 % 64 + 1) * 16384)
        large[-1] = i % 256
        with mmap.mmap(-1, (i % 16 + 1) * mmap.PAGESIZE) as mapping:
            mapping[-1] = i % 256
            digest.update(mapping[:])
        digest.update("".join(small).encode())
        digest.update(large)
        del small, large
    answers[number] = digest.hexdigest()


threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
for t in threads:
    t.start()
for t in threads:
    t.join()
for n, answer in enumerate(answers):
    print(n, answer)
