#include "attention/attend_avx512.cc"
