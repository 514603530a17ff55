/* Drives a fuzzer where libFuzzer is not at hand: feeds it each file of the corpus, then mutations of them and random
 * bytes. The random numbers are the same in each run, so that a crash can be had again.
 *
 *   fuzz_X RUNS [CORPUS]    or    fuzz_X FILE    to repeat one input
 *
 * The input under way is kept in a shared mapping of ./fuzz_X.crash, which is removed at the end: after a crash it is
 * there. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { INPUT_MAX = 8192, SEEDS_MAX = 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    size_t size;
    uint8_t data[INPUT_MAX];
};

static uint64_t driver_random(uint64_t *state) { /* splitmix64 */
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int driver_read(int directory, const char *name, struct input *ret_input) {
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret_input->data, INPUT_MAX);
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return -errno;
    ret_input->size = (size_t)n;
    return 0;
}

static unsigned driver_corpus(const char *path, struct input *seeds) {
    unsigned n = 0;
    DIR *directory = opendir(path);
    if (directory == NULL)
        return 0;
    for (struct dirent *entry; n < SEEDS_MAX && (entry = readdir(directory)) != NULL;)
        if (entry->d_name[0] != '.' && driver_read(dirfd(directory), entry->d_name, &seeds[n]) == 0)
            n++;
    closedir(directory);
    return n;
}

/* Runs the fuzzer on a copy that ends at the end of its allocation, where AddressSanitizer sees reads beyond it. */
static void driver_feed(struct input *current, size_t size) {
    uint8_t *copy = malloc(size > 0 ? size : 1);
    if (copy == NULL)
        abort();
    current->size = size;
    memcpy(copy, current->data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static size_t driver_mutate(uint8_t *data, size_t size, uint64_t *state) {
    static const uint64_t interesting[] = {0, 1, 127, 128, 255, 256, 65535, 65536, INT32_MAX, UINT32_MAX, UINT64_MAX};
    unsigned rounds = 1 + (unsigned)(driver_random(state) % 8);
    while (rounds-- > 0) {
        uint64_t r = driver_random(state);
        size_t at = size > 0 ? (size_t)((r >> 8) % size) : 0;
        switch (r % 6) {
        case 0:
            if (size > 0)
                data[at] ^= (uint8_t)(1u << ((r >> 40) & 7));
            break;
        case 1:
            if (size > 0)
                data[at] = (uint8_t)(r >> 40);
            break;
        case 2:
            size = at;
            break;
        case 3: /* insert a byte */
            if (size < INPUT_MAX) {
                memmove(data + at + 1, data + at, size - at);
                data[at] = (uint8_t)(r >> 40);
                size++;
            }
            break;
        case 4: { /* an integer that sits at a limit */
            size_t width = (size_t)1 << ((r >> 40) & 3);
            if (at + width <= size)
                memcpy(data + at, &interesting[(r >> 48) % (sizeof(interesting) / sizeof(*interesting))], width);
            break;
        }
        default: { /* repeat a stretch */
            size_t length = (size_t)((r >> 40) % 64);
            if (at + length <= size && size + length <= INPUT_MAX) {
                memmove(data + at + length, data + at, size - at);
                size += length;
            }
        }
        }
    }
    return size;
}

int main(int argc, char **argv) {
    char crash[256];
    uint64_t state = 1;
    struct input *seeds = calloc(SEEDS_MAX, sizeof(*seeds));
    struct input *current = MAP_FAILED;
    char *end = NULL;
    unsigned long runs = argc > 1 ? strtoul(argv[1], &end, 10) : 100000;

    snprintf(crash, sizeof(crash), "%s.crash", strrchr(argv[0], '/') != NULL ? strrchr(argv[0], '/') + 1 : argv[0]);
    int fd = open(crash, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0 && ftruncate(fd, sizeof(*current)) == 0)
        current = mmap(NULL, sizeof(*current), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (seeds == NULL || current == MAP_FAILED) {
        perror(crash);
        return 1;
    }
    if (end != NULL && *end != '\0') { /* one file, as it is; a crash file begins with the size */
        if (driver_read(AT_FDCWD, argv[1], &seeds[0]) < 0)
            return 1;
        memcpy(current->data, seeds[0].data, seeds[0].size);
        driver_feed(current, seeds[0].size);
        free(seeds);
        unlink(crash);
        return 0;
    }
    unsigned n_seeds = argc > 2 ? driver_corpus(argv[2], seeds) : 0;
    for (unsigned i = 0; i < n_seeds; i++) {
        memcpy(current->data, seeds[i].data, seeds[i].size);
        driver_feed(current, seeds[i].size);
    }
    for (unsigned long i = 0; i < runs; i++) {
        uint64_t r = driver_random(&state);
        size_t size = (size_t)((r >> 32) % 512);
        if (n_seeds > 0 && r % 8 != 0) {
            const struct input *seed = &seeds[(r >> 8) % n_seeds];
            size = seed->size;
            memcpy(current->data, seed->data, size);
        } else
            for (size_t b = 0; b < size; b++)
                current->data[b] = (uint8_t)driver_random(&state);
        driver_feed(current, driver_mutate(current->data, size, &state));
    }
    free(seeds);
    unlink(crash);
    fprintf(stderr, "%lu runs, %u seeds\n", runs, n_seeds);
    return 0;
}
