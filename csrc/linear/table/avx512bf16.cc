#include "linear/table/avx512.cc"
