/* Answers ARP requests for 10.111.0.2 and pings, through Solo5's own bindings. */

#include "solo5.h"

#define FRAME_MAX 1514
#define HEADER 14

static const uint8_t address[4] = { 10, 111, 0, 2 };
static uint8_t frame[FRAME_MAX];

static int equal(const uint8_t *a, const uint8_t *b, size_t size)
{
    while (size-- > 0)
        if (*a++ != *b++)
            return 0;
    return 1;
}

static void copy(uint8_t *to, const uint8_t *from, size_t size)
{
    while (size-- > 0)
        *to++ = *from++;
}

/* RFC 826: 8 bytes that say Ethernet, IPv4 and request, then the sender's addresses, then the target's. */
static int answer_arp(uint8_t *arp, size_t size, const uint8_t *mac)
{
    static const uint8_t request[8] = { 0, 1, 8, 0, 6, 4, 0, 1 };

    if (size < 28 || !equal(arp, request, 8) || !equal(arp + 24, address, 4))
        return 0;
    arp[7] = 2;
    copy(arp + 18, arp + 8, 10);
    copy(arp + 8, mac, 6);
    copy(arp + 14, address, 4);
    return 1;
}

/* RFC 792. The header has no options, and a reply differs from its request in one byte, so the sum differs by as much. */
static int answer_ping(uint8_t *ip, size_t size)
{
    uint8_t sender[4];
    unsigned sum;

    if (size < 28 || ip[0] != 0x45 || ip[9] != 1 || !equal(ip + 16, address, 4) || ip[20] != 8)
        return 0;
    copy(sender, ip + 12, 4);
    copy(ip + 12, address, 4);
    copy(ip + 16, sender, 4);
    ip[20] = 0;
    sum = ((unsigned)ip[22] << 8 | ip[23]) + 0x800;
    sum += sum >> 16;
    ip[22] = (uint8_t)(sum >> 8);
    ip[23] = (uint8_t)sum;
    return 1;
}

int solo5_app_main(const struct solo5_start_info *info)
{
    struct solo5_net_info net;
    solo5_handle_t handle;
    size_t size;

    (void)info;
    if (solo5_net_acquire("service0", &handle, &net) != SOLO5_R_OK)
        return SOLO5_EXIT_FAILURE;
    for (;;) {
        int answered = 0;

        if (solo5_net_read(handle, frame, sizeof frame, &size) != SOLO5_R_OK) {
            solo5_yield(solo5_clock_monotonic() + 1000000000, NULL);
            continue;
        }
        if (size < HEADER)
            continue;
        if (frame[12] == 8 && frame[13] == 6)
            answered = answer_arp(frame + HEADER, size - HEADER, net.mac_address);
        else if (frame[12] == 8 && frame[13] == 0)
            answered = answer_ping(frame + HEADER, size - HEADER);
        if (answered) {
            copy(frame, frame + 6, 6);
            copy(frame + 6, net.mac_address, 6);
            (void)solo5_net_write(handle, frame, size);
        }
    }
}
