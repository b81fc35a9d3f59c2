/* Intel's ISA-L as a peer of `cargo xtask bench erasure`. Reads lines "TASK CHUNK_BYTES TIMES", does the task so often on
 * buffers that are there already, and answers with the seconds of processor time it took. Tasks: encode, rebuild1, rebuild2, memcpy.
 * Every answer of a rebuild was compared with the lost shards first; "wrong" says that they differ. */
#include <isa-l/erasure_code.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DATA = 3, ALL = 5, MAX_LOST = 2 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint8_t *buffer(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes) != 0) exit(1);
    return memory;
}

/* Tables that make the first `lost` data shards out of the three behind them. */
static int decode_tables(uint8_t *matrix, int lost, uint8_t *tables) {
    uint8_t given[DATA * DATA], inverse[DATA * DATA];
    for (int row = 0; row < DATA; row++)
        memcpy(given + row * DATA, matrix + (row + lost) * DATA, DATA);
    if (gf_invert_matrix(given, inverse, DATA) != 0) return -1;
    ec_init_tables(DATA, lost, inverse, tables);
    return 0;
}

int main(void) {
    char task[16];
    size_t chunk, times;
    uint8_t matrix[ALL * DATA], encode[32 * DATA * 2], decode[32 * DATA * MAX_LOST];
    gf_gen_cauchy1_matrix(matrix, ALL, DATA);
    ec_init_tables(DATA, ALL - DATA, matrix + DATA * DATA, encode);
    while (scanf("%15s %zu %zu", task, &chunk, &times) == 3) {
        size_t bytes = (chunk + DATA - 1) / DATA;
        uint8_t *shard[ALL], *made[MAX_LOST], *from = buffer(chunk), *to = buffer(chunk);
        for (int i = 0; i < ALL; i++) shard[i] = buffer(bytes);
        for (int i = 0; i < MAX_LOST; i++) made[i] = buffer(bytes);
        for (int i = 0; i < DATA; i++)
            for (size_t at = 0; at < bytes; at++) shard[i][at] = (uint8_t)rand();
        memset(from, 1, chunk);
        memset(to, 2, chunk);
        ec_encode_data((int)bytes, DATA, ALL - DATA, encode, shard, shard + DATA);
        int lost = strcmp(task, "rebuild2") == 0 ? 2 : 1;
        if (decode_tables(matrix, lost, decode) != 0) return 1;
        ec_encode_data((int)bytes, DATA, lost, decode, shard + lost, made);
        int wrong = 0;
        for (int i = 0; i < lost; i++) wrong |= memcmp(made[i], shard[i], bytes) != 0;
        double started = now();
        for (size_t time = 0; time < times; time++) {
            if (strcmp(task, "encode") == 0)
                ec_encode_data((int)bytes, DATA, ALL - DATA, encode, shard, shard + DATA);
            else if (strcmp(task, "memcpy") == 0) {
                memcpy(to, from, chunk);
                __asm__ volatile("" : : "r"(to) : "memory");
            } else
                ec_encode_data((int)bytes, DATA, lost, decode, shard + lost, made);
        }
        if (wrong) puts("wrong");
        else printf("%.9f\n", now() - started);
        fflush(stdout);
        for (int i = 0; i < ALL; i++) free(shard[i]);
        for (int i = 0; i < MAX_LOST; i++) free(made[i]);
        free(from);
        free(to);
    }
    return 0;
}
