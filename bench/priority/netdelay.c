// netdelay IF1 IF2 DELAY_MS MBIT
//
// A link between two interfaces, for kernels without netem: frames go from one to the other after
// DELAY_MS, at most MBIT in a second, each direction alike. What would have to wait for longer than
// QUEUE_MS in front of it is dropped. Ends by SIGTERM and then prints one line per direction:
// frames, dropped, and the longest wait in microseconds.
//
// Owns the frames under way. Counts whole Ethernet frames. It never looks into one, and needs the
// offloads of both hosts to be off, since it takes no super-packet. SCHED_FIFO where permitted: a
// wire does not wait for a processor.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

#define FRAMES 16384 // under way, each direction
#define FRAME_BYTES 2048
#define QUEUE_MS 100
#define SECOND 1000000000LL

struct frame {
    int64_t due;
    int length;
    char bytes[FRAME_BYTES];
};

struct direction {
    int from, to;
    struct frame *frames;
    unsigned head, tail;
    int64_t wire_free;
    unsigned long passed, dropped;
    int64_t wait_max;
};

static volatile sig_atomic_t ended;

static void end(int signal) {
    (void)signal;
    ended = 1;
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static int open_interface(const char *name) {
    int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)), one = 1, buffer = 8 << 20;
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = if_nametoindex(name)};
    struct packet_mreq promiscuous = {.mr_ifindex = address.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one);
    setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    if (fd < 0 || !address.sll_ifindex || bind(fd, (void *)&address, sizeof address)) {
        perror(name);
        exit(1);
    }
    return fd;
}

// Sends what is due; the time of the next one, or -1.
static int64_t deliver(struct direction *way, int64_t time) {
    while (way->head != way->tail) {
        struct frame *frame = &way->frames[way->head % FRAMES];
        if (frame->due > time) return frame->due;
        if (send(way->to, frame->bytes, frame->length, 0) < 0) way->dropped++;
        way->head++;
    }
    return -1;
}

static void accept_frames(struct direction *way, int64_t delay, double ns_per_byte) {
    for (int taken = 0; taken < 64; taken++) {
        static char lost[FRAME_BYTES];
        struct frame *frame = &way->frames[way->tail % FRAMES];
        int full = way->tail - way->head >= FRAMES;
        int length = recv(way->from, full ? lost : frame->bytes, FRAME_BYTES, MSG_DONTWAIT);
        if (length <= 0) return;
        int64_t time = now();
        int64_t wait = way->wire_free > time ? way->wire_free - time : 0;
        if (full || wait > QUEUE_MS * SECOND / 1000) {
            way->dropped++;
            continue;
        }
        if (wait > way->wait_max) way->wait_max = wait;
        way->wire_free = time + wait + (int64_t)(length * ns_per_byte);
        frame->due = way->wire_free + delay;
        frame->length = length;
        way->passed++;
        way->tail++;
    }
}

int main(int count, char **words) {
    if (count != 5 || atof(words[4]) <= 0) {
        fprintf(stderr, "usage: netdelay IF1 IF2 DELAY_MS MBIT\n");
        return 2;
    }
    int64_t delay = (int64_t)(atof(words[3]) * 1e6);
    double ns_per_byte = 8000 / atof(words[4]);
    int one = open_interface(words[1]), other = open_interface(words[2]);
    struct direction ways[2] = {{.from = one, .to = other}, {.from = other, .to = one}};
    for (int i = 0; i < 2; i++) ways[i].frames = calloc(FRAMES, sizeof(struct frame));
    prctl(PR_SET_TIMERSLACK, 1000);
    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 50});
    signal(SIGTERM, end);
    signal(SIGINT, end);
    while (!ended) {
        int64_t next = -1, time = now();
        for (int i = 0; i < 2; i++) {
            int64_t due = deliver(&ways[i], time);
            if (due >= 0 && (next < 0 || due < next)) next = due;
        }
        int64_t wait = next < 0 ? SECOND : next > time ? next - time : 0;
        struct timespec timeout = {wait / SECOND, wait % SECOND};
        struct pollfd ready[2] = {{one, POLLIN, 0}, {other, POLLIN, 0}};
        ppoll(ready, 2, &timeout, NULL);
        for (int i = 0; i < 2; i++) accept_frames(&ways[i], delay, ns_per_byte);
    }
    for (int i = 0; i < 2; i++)
        printf("%lu %lu %lld\n", ways[i].passed, ways[i].dropped, (long long)(ways[i].wait_max / 1000));
    return 0;
}
