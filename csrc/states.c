/* states.c - the three tables made from states.def. */
#include "uam_int.h"

#define NEXT(state) ((uint8_t)((state) + 1)) /* 0 stays free for "no such edge" */

static const uint8_t conn_table[UAM_CONN_END + 1][UAM_N_CONN_INPUT] = {
#define EDGE_conn(state, input, next) [UAM_CONN_##state][UAM_##input] = NEXT(UAM_CONN_##next),
#define EDGE_session(state, input, next)
#define EDGE_link(state, input, next)
#define UAM_EDGE(machine, state, input, next) EDGE_##machine(state, input, next)
#include "states.def"
#undef EDGE_conn
#undef EDGE_session
};
static const uint8_t session_table[UAM_SESSION_DISCARDING + 1][UAM_N_SESSION_INPUT] = {
#define EDGE_conn(state, input, next)
#define EDGE_session(state, input, next) [UAM_SESSION_##state][UAM_##input] = NEXT(UAM_SESSION_##next),
#include "states.def"
#undef EDGE_session
#undef EDGE_link
};
static const uint8_t link_table[UAM_LINK_DETACH_RCVD + 1][UAM_N_LINK_INPUT] = {
#define EDGE_session(state, input, next)
#define EDGE_link(state, input, next) [UAM_LINK_##state][UAM_##input] = NEXT(UAM_LINK_##next),
#include "states.def"
#undef EDGE_conn
#undef EDGE_session
#undef EDGE_link
#undef UAM_EDGE
};

uint8_t uam_conn_next(uint8_t state, int input) { return conn_table[state][input]; }
uint8_t uam_session_next(uint8_t state, int input) { return session_table[state][input]; }
uint8_t uam_link_next(uint8_t state, int input) { return link_table[state][input]; }
