// Cooperative matrices of 8 x 8: Apple's, and those of Mesa's software driver.

alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;
const SIDE: u32 = 8u;
